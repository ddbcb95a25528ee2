package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Kind is one check: what it finds, why that matters, and how severe it is unless the case is milder.
type Kind struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Needs    bool     `json:"needsInventory,omitempty"` // it says nothing without a view
	Title    string   `json:"title"`
	Why      string   `json:"why"`
}

const (
	checkSyntax        = "syntax"
	checkIgnore        = "unknown-check"
	checkNever         = "never-matches"
	checkExcept        = "except-covers-block"
	checkContradiction = "contradiction"
	checkShadowed      = "shadowed"
	checkRedundant     = "redundant"
	checkCollision     = "priority-collision"
	checkOnDeny        = "on-deny-differs"
	checkNothing       = "selects-nothing"
	checkNobody        = "peer-matches-nothing"
	checkNoNamespace   = "namespace-matches-nothing"
	checkTypo          = "label-typo"
	checkHostNetwork   = "host-network-only"
	checkNetwork       = "unknown-network"
	checkService       = "unknown-service"
	checkPortName      = "unknown-port-name"
	checkServicePort   = "service-port"
	checkUnused        = "unused-rules"
	checkEmptyEgress   = "empty-egress"
	checkImplicit      = "implicit-ingress-deny"
	checkWide          = "too-wide"
	checkEverybody     = "open-to-everybody"
	checkWholeCluster  = "whole-cluster"
	checkMetadata      = "metadata-open"
	checkOr            = "or-not-and"
	checkDNS           = "dns-forgotten"
	checkDNSTCP        = "dns-without-tcp"
	checkHostBits      = "host-bits"
	checkPodBlock      = "block-of-pods"
	checkClusterName   = "cluster-dns-name"
	checkMesh          = "mesh-port"
	checkExpired       = "expired"
	checkExpires       = "expires-soon"
	checkIdle          = "idle-rule"
	checkConverted     = "converted"
	checkTooMany       = "too-many-rules"
)

// kinds in the order of the documentation.
var kinds = []Kind{
	{checkSyntax, Error, false, "The file cannot be read", "Nothing of a file with a mistake takes force."},
	{checkNever, Error, false, "It can never match", "No workload can fulfil the selector, or no connection the rule, whatever is deployed."},
	{checkExcept, Error, false, "The exceptions cover the whole block", "Nothing is left of the ipBlock, so the peer is nobody."},
	{checkContradiction, Error, false, "Allowed and denied alike", "Two rules say opposite things of the same connections at the same priority; only one of them can be meant."},
	{checkShadowed, Warning, false, "A rule that never decides", "Rules that are asked earlier decide everything that it matches."},
	{checkRedundant, Warning, false, "A rule or item that adds nothing", "Everything that it matches is allowed or denied by others in the same way. Between policies it is a note, since they may come and go apart."},
	{checkCollision, Warning, false, "The same priority, different answers", "Which of two cluster-wide policies of the same priority is asked first is left to the engine; here their names decide."},
	{checkOnDeny, Warning, true, "Rejected by one policy, dropped by the other", "Denials of one direction of a workload are told in one manner; where policies differ, Drop holds."},
	{checkNothing, Warning, true, "The policy selects nobody", "No known workload carries these labels, so it protects nothing."},
	{checkNobody, Warning, true, "The peer is nobody", "No known workload carries these labels, so the peer admits nothing."},
	{checkNoNamespace, Warning, true, "No such namespace", "No known namespace carries these labels."},
	{checkTypo, Warning, false, "A label that looks mistyped", "Nobody carries the label, but one that is spelled nearly the same is in use. Without an inventory it is a note, from the labels of the other policies."},
	{checkHostNetwork, Warning, true, "Only workloads on the host's network match", "They share their node's addresses; no policy can tell them from the node."},
	{checkNetwork, Warning, false, "A network that is not configured", "The peer is nobody where the name is not in the daemon's configuration."},
	{checkService, Warning, true, "A Service that is not there", "The peer is nobody until there is a Service of that name."},
	{checkPortName, Warning, true, "A port name nobody has", "A name is looked up at the server's container ports; where none has it, the rule opens nothing."},
	{checkServicePort, Warning, true, "A Service's port in the place of the pods' port", "Policies are about the port on which the workload listens, not the one that its Service shows."},
	{checkUnused, Warning, false, "Rules of a direction that policyTypes leaves out", "They do nothing."},
	{checkEmptyEgress, Warning, false, "An empty egress list does not isolate egress", "Without policyTypes an empty list counts as none; all outgoing connections stay allowed."},
	{checkImplicit, Warning, false, "Egress rules that also deny all ingress", "Without policyTypes every policy isolates ingress; without ingress rules it then denies all of it."},
	{checkWide, Warning, false, "Everything is open", "Everybody or the whole world on every port is hardly ever what is needed."},
	{checkEverybody, Note, false, "Everybody may use the port", "A rule without peers, or with an empty list of them, admits every address, inside and outside of the cluster."},
	{checkWholeCluster, Note, false, "Every workload of every namespace", "An empty namespaceSelector selects all namespaces, on every port."},
	{checkMetadata, Note, false, "The cloud's metadata server is in reach", "A block of all addresses admits 169.254.169.254, which hands out the node's credentials."},
	{checkOr, Note, false, "Two list items are either-or", "A namespaceSelector and a podSelector as two items admit more than the pods of these namespaces."},
	{checkDNS, Warning, false, "DNS is forgotten", "Egress is isolated and nothing lets the workload ask for names, so every peer that it calls by name is lost."},
	{checkDNSTCP, Note, false, "DNS by UDP only", "Answers that do not fit into a datagram are asked for again by TCP (RFC 7766)."},
	{checkHostBits, Warning, false, "A CIDR with host bits", "It is read as its network; newer API servers refuse it in new objects."},
	{checkPodBlock, Warning, true, "Pods by their addresses", "A pod's address changes with every restart, and its next owner inherits the permission."},
	{checkClusterName, Note, false, "A cluster name as a DNS peer", "Names of Services are better selected by service or labels, which do not depend on what was asked."},
	{checkMesh, Warning, true, "The mesh's tunnel port is closed", "In an ambient mesh connections arrive on TCP 15008; a policy with other ports only cuts them."},
	{checkExpired, Warning, false, "An expired rule", "It means nothing any more."},
	{checkExpires, Note, false, "A rule that soon ends", "What it allows or denies changes by itself on that day."},
	{checkIdle, Note, false, "A rule that nothing uses", "Permissions that nobody needs are only of use to an attacker. It is known where a daemon that counts is asked."},
	{checkConverted, Note, false, "Read as another kind", "An older kind was brought to the present one."},
	{checkIgnore, Warning, false, "An unknown check is ignored", "The annotation " + IgnoreAnnotation + " names a check that does not exist, so it silences nothing."},
	{checkTooMany, Note, false, "Too many rules to compare", "The work is bounded; some rules were not held against the others."},
}

// Checks lists everything that can be found.
func Checks() []Kind { return slices.Clone(kinds) }

func find(id string) (Kind, bool) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.ID == id })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

func checkOf(id string) Kind {
	k, ok := find(id)
	if !ok {
		panic("lint: check " + id + " is not in the list of kinds")
	}
	return k
}

func checkNames() []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = k.ID
	}
	return out
}

// didYouMean gives `; did you mean "web"?` where one of the known words is near.
func didYouMean(word string, known []string) string {
	if near := policy.Nearest(word, known); near != "" && near != word {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// Syntax is the finding for what [policy.Parse] said of a file, "name:line:column: what".
func Syntax(file string, err error) Finding {
	f := Finding{Check: checkSyntax, Severity: Error, File: file, Message: err.Error()}
	text, ok := strings.CutPrefix(err.Error(), file+":")
	if !ok {
		return f
	}
	var line, column int
	if n, _ := fmt.Sscanf(text, "%d:%d:", &line, &column); n == 2 {
		rest := text[len(fmt.Sprintf("%d:%d:", line, column)):]
		f.Line, f.Column = line, column
		f.Message = strings.TrimSpace(rest)
	}
	return f
}
