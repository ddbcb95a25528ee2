package daemon

// followRedirects finds out whether somebody rewrites what comes in, a mesh's sidecar mostly, whose
// rules come before ours or after: ingress is judged before that then.
func (w *workload) followRedirects(g *grip) {
	if g.ns == nil {
		return
	}
	now, err := g.ns.Redirects()
	if err != nil {
		w.log.Warn("not known whether incoming packets are rewritten", "err", err)
		return
	}
	if now != g.redirected {
		g.redirected = now
		w.log.Info("ingress is judged elsewhere", "redirected", now)
		w.kick("redirect")
	}
}
