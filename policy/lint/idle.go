package lint

import (
	"time"
)

// Use is when a rule was last used.
type Use struct {
	Counted time.Time // since when somebody counts; zero: nobody does
	Last    time.Time // zero: never since then
}

// defaultIdle is how long a rule may be without use: a month's business has been seen then.
const defaultIdle = 30 * 24 * time.Hour

// unused: rules that nothing uses any more.
func (l *linter) unused(r *rule) {
	if l.options.Used == nil || l.options.Now.IsZero() || r.of.Shadow {
		return
	}
	u := l.options.Used(r.of, r.dir, r.at)
	last, what := u.Last, "was last used"
	if last.IsZero() {
		last, what = u.Counted, "was never used since"
	}
	if u.Counted.IsZero() || l.options.Now.Sub(last) < l.options.Idle {
		return
	}
	l.add(r.of, r.path(), checkIdle, "the rule %s %s, %s ago", what, day(last), inDays(l.options.Now.Sub(last))).
		fix("remove it, or give it an expires if it is for something rare")
}
