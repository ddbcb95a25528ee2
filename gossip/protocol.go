package gossip

// Versions of the messages of this package that this program reads, and speaks. memberlist keeps nodes
// apart that have none in common.
//
// A program of version N+1 reads what one of version N says, and says to each node only what that node
// reads: so a cluster is upgraded node by node. What is new waits until the last one is there.
const (
	protocolMin = 1
	protocolMax = 1
)

// since says with which version a kind of message came. A kind that is not listed is of the first.
var since = map[byte]uint8{}

func (g *Cluster) since(kind byte) uint8 {
	if g.config.since != nil {
		return g.config.since(kind)
	}
	return max(since[kind], protocolMin)
}

// reads says whether a member knows a kind of message.
func (g *Cluster) reads(version uint8, message []byte) bool {
	return len(message) == 0 || g.since(message[0]) <= version
}

// Protocol is the highest version of the messages that all living members read.
func (g *Cluster) Protocol() int { return int(g.common.Load()) }
