package daemon

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// ourselves is who made a generation that nobody asked for.
const ourselves = "bulkheadd"

// author writes down who asked for a generation.
func author(ctx context.Context, g *StoredGeneration) {
	caller, called := server.CallerOf(ctx)
	if !called {
		g.Who = cmp.Or(g.Who, ourselves)
		return
	}
	g.UID, g.PID = &caller.UID, caller.PID
	g.Who = fmt.Sprintf("%s (pid %d)", userName(caller.UID), caller.PID)
	if login, known := loginOf(caller.PID); known && login != caller.UID {
		g.Who = fmt.Sprintf("%s as %s (pid %d)", userName(login), userName(caller.UID), caller.PID)
	}
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// loginOf is who logged in where a process came from, before any sudo or su (loginuid, proc(5)).
func loginOf(pid int32) (uint32, bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/loginuid", pid))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 32)
	return uint32(n), err == nil && uint32(n) != ^uint32(0) // all ones: nobody logged in
}

// row is a generation as the API tells it.
func (g *StoredGeneration) row() api.Generation {
	out := api.Generation{Number: g.Number, Time: g.Time, Who: g.Who, UID: g.UID, PID: g.PID, Cause: g.Cause, Message: g.Message,
		State: g.State, Files: g.Files, Modes: len(g.Modes)}
	for _, c := range g.Changes {
		switch {
		case c.Before == nil:
			out.Created++
		case c.After == nil:
			out.Removed++
		default:
			out.Changed++
		}
	}
	return out
}

// History lists the generations that are kept, newest first.
func (d *Daemon) History(_ context.Context, limit int) ([]api.Generation, error) {
	out := []api.Generation{}
	err := d.store.Generations(func(g StoredGeneration) bool {
		out = append(out, g.row())
		return limit == 0 || len(out) < limit
	})
	return out, err
}

// Generation is one generation with all that it changed.
func (d *Daemon) Generation(_ context.Context, n uint64) (api.Generation, error) {
	g, err := d.stored(n)
	if err != nil {
		return api.Generation{}, err
	}
	out := g.row()
	for _, c := range g.Changes {
		row := api.GenerationChange{Name: c.Slot, What: "changed"}
		if s, err := parseSlot(c.Slot); err == nil {
			row.Name = s.String()
		}
		state := c.After
		switch {
		case c.Before == nil:
			row.What = "created"
		case c.After == nil:
			row.What, state = "removed", c.Before
		}
		if state != nil {
			row.File = state.File
		}
		out.Changes = append(out.Changes, row)
	}
	for _, m := range g.Modes {
		name := "mode of " + m.Service
		if m.Service == allServices {
			name = "mode of all other services"
		}
		out.Changes = append(out.Changes, api.GenerationChange{Name: name, What: modeText(m.Before) + " → " + modeText(m.After)})
	}
	return out, nil
}

func modeText(m *policy.Mode) string {
	if m == nil {
		return "default"
	}
	return m.String()
}

func (d *Daemon) stored(n uint64) (*StoredGeneration, error) {
	var found *StoredGeneration
	oldest := uint64(0)
	err := d.store.Generations(func(g StoredGeneration) bool {
		if oldest = g.Number; g.Number == n {
			found = &g
		}
		return g.Number > n
	})
	switch {
	case found != nil:
		return found, nil
	case err != nil:
		return nil, err
	case n > d.generation.Load():
		return nil, api.Errorf(api.NotFound, "generation %d: the newest is %d", n, d.generation.Load())
	}
	return nil, api.Errorf(api.NotFound, "generation %d is not kept any more; the oldest is %d", n, oldest)
}

// past is the state after a former generation, as far as it differs from the present one.
type past struct {
	policies map[slot]*StoredState // nil: there was none
	own      map[identity.Service]*policy.Mode
	standard **policy.Mode // nil: as now
}

// after takes back, newest first, what every generation later than n did.
func (d *Daemon) after(n uint64) (*past, error) {
	out := &past{policies: map[slot]*StoredState{}, own: map[identity.Service]*policy.Mode{}}
	oldest := d.generation.Load() + 1
	var bad error
	err := d.store.Generations(func(g StoredGeneration) bool {
		if g.Number <= n {
			return false
		}
		oldest = g.Number
		bad = out.takeBack(&g)
		return bad == nil
	})
	switch {
	case err != nil:
		return nil, err
	case bad != nil:
		return nil, bad
	case n > d.generation.Load():
		return nil, api.Errorf(api.NotFound, "generation %d: the newest is %d", n, d.generation.Load())
	case oldest > n+1:
		return nil, api.Errorf(api.NotFound, "generation %d is not kept any more; the oldest to go back to is %d", n, oldest-1)
	}
	return out, nil
}

// takeBack makes what was before a generation the state.
func (o *past) takeBack(g *StoredGeneration) error {
	for _, c := range g.Changes {
		s, err := parseSlot(c.Slot)
		if err != nil {
			return fmt.Errorf("history, generation %d: %w", g.Number, err)
		}
		o.policies[s] = c.Before
	}
	for _, m := range g.Modes {
		if m.Service == allServices {
			o.standard = &m.Before
			continue
		}
		s, err := parseService(m.Service)
		if err != nil {
			return fmt.Errorf("history, generation %d: %w", g.Number, err)
		}
		o.own[s] = m.Before
	}
	return nil
}
