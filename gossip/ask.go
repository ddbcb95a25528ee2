package gossip

import (
	"context"
	"errors"
	"fmt"
)

// Handler answers a question of another node. It may take its time, within ctx. An error reaches the
// asker as text.
type Handler func(ctx context.Context, from string, body []byte) ([]byte, error)

// question and answer are between two nodes, over TCP.
type question struct {
	_    struct{} `cbor:",toarray"`
	ID   uint64
	What string
	Body []byte
}

type answer struct {
	_     struct{} `cbor:",toarray"`
	ID    uint64
	Error string
	Body  []byte
}

func (q *question) check() error { return checkText("question", q.What, maxName) }
func (a *answer) check() error   { return nil }

// ErrUnreachable says that a node is no member, or cannot be reached.
var ErrUnreachable = errors.New("not reachable")

// Ask puts a question to another node and waits for its answer, as long as ctx lives. Errors: the node
// is not reachable, knows no such question (it may be of another version), answered with an error, or
// not in time.
func (g *Cluster) Ask(ctx context.Context, node, what string, body []byte) ([]byte, error) {
	to := g.member(node)
	if to == nil {
		return nil, fmt.Errorf("gossip: ask node %q: %w: no living member", node, ErrUnreachable)
	}
	id := g.questions.Add(1)
	got := make(chan *answer, 1)
	g.mu.Lock()
	g.waiting[id] = got
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.waiting, id)
		g.mu.Unlock()
	}()
	if err := g.list.SendReliable(to, g.frame(encode(msgQuestion, &question{ID: id, What: what, Body: body}))); err != nil {
		return nil, fmt.Errorf("gossip: ask node %q: %w: %w", node, ErrUnreachable, err)
	}
	select {
	case a := <-got:
		if a.Error != "" {
			return nil, fmt.Errorf("gossip: node %q answers: %s", node, a.Error)
		}
		return a.Body, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("gossip: ask node %q for %s: %w", node, what, ctx.Err())
	}
}

// maxAnswering bounds how many questions are answered at a time; more are refused.
const maxAnswering = 64

// onQuestion answers in a task of its own.
func (g *Cluster) onQuestion(ctx context.Context, f frame) error {
	q, err := decode[question](f.message)
	if err != nil {
		return fmt.Errorf("gossip: from node %q: %w", f.from, err)
	}
	select {
	case g.answering <- struct{}{}:
	default:
		g.reply(f.from, encode(msgAnswer, &answer{ID: q.ID, Error: "busy: too many questions at a time"}))
		return nil
	}
	g.run(ctx, func(ctx context.Context) {
		defer func() { <-g.answering }()
		a := answer{ID: q.ID}
		if handle := g.handlers[q.What]; handle == nil {
			a.Error = fmt.Sprintf("no such question: %q", q.What)
		} else if body, err := handle(ctx, f.from, q.Body); err != nil {
			a.Error = err.Error()
		} else {
			a.Body = body
		}
		g.reply(f.from, encode(msgAnswer, &a))
	})
	return nil
}

func (g *Cluster) onAnswer(f frame) error {
	a, err := decode[answer](f.message)
	if err != nil {
		return fmt.Errorf("gossip: from node %q: %w", f.from, err)
	}
	g.mu.Lock()
	got := g.waiting[a.ID]
	delete(g.waiting, a.ID)
	g.mu.Unlock()
	if got != nil {
		got <- a
	}
	return nil
}

// reply queues a message for one node.
func (g *Cluster) reply(to string, message []byte) {
	select {
	case g.outbox <- outgoing{to, message}:
	default:
		g.counts.Unsent.Add(1)
	}
}
