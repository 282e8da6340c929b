package simulation

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// trace keeps the last notes of each key, so that a stale copy tells its story.
type trace struct {
	w    *world
	mu   sync.Mutex
	keys []ring
}

type ring struct {
	notes [64]note
	n     int
}

type note struct {
	at      time.Duration
	what    string
	node    int // -1: none
	seq     int
	version rowtide.Version
}

// everyKey is for notes that concern all of them.
const everyKey = -1

func newTrace(w *world) *trace { return &trace{w: w, keys: make([]ring, w.keys+1)} }

func (t *trace) note(id int, what string, node, seq int, v rowtide.Version) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == everyKey {
		id = len(t.keys) - 1
	}
	r := &t.keys[id]
	r.notes[r.n%len(r.notes)] = note{t.w.now(), what, node, seq, v}
	r.n++
}

func (r *ring) all() []note {
	var out []note
	for i := max(0, r.n-len(r.notes)); i < r.n; i++ {
		out = append(out, r.notes[i%len(r.notes)])
	}
	return out
}

// story is what happened to a key since, with what happened to all.
func (t *trace) story(id int, since time.Duration) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	own, all := t.keys[id].all(), t.keys[len(t.keys)-1].all()
	var b strings.Builder
	for len(own)+len(all) > 0 {
		var next note
		if len(all) == 0 || len(own) > 0 && own[0].at <= all[0].at {
			next, own = own[0], own[1:]
		} else {
			next, all = all[0], all[1:]
		}
		if next.at < since {
			continue
		}
		fmt.Fprintf(&b, "\n    %12.6fs  %-28s", next.at.Seconds(), next.what)
		if next.node >= 0 {
			fmt.Fprintf(&b, " node %d", next.node)
		}
		if next.seq > 0 {
			fmt.Fprintf(&b, " value %d", next.seq)
		}
		if next.version > 0 {
			fmt.Fprintf(&b, " version %s", next.version)
		}
	}
	return b.String()
}
