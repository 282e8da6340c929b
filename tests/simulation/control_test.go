package simulation

import (
	"slices"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// control is the control topic: what was said last of the module.
type control struct {
	mu      sync.Mutex
	last    rowtide.ModuleControl
	records int
}

func (c *control) read() (last rowtide.ModuleControl, records int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.records
}

func (c *control) generation() uint32 {
	last, _ := c.read()
	return last.Generation
}

// put is a record that all replicas have.
func (d *daemon) put(mc rowtide.ModuleControl) {
	w := d.w
	pass(d.dice.upTo(w.sendTime))
	w.control.mu.Lock()
	w.control.last = mc
	w.control.records++
	w.control.mu.Unlock()
	w.topic.mu.Lock()
	w.topic.ring()
	w.topic.mu.Unlock()
	pass(d.dice.upTo(w.sendTime))
}

// announce does as cmd's announcer at its start: nodes are told the key space, and
// the daemon the generation.
func (d *daemon) announce() {
	mc, _ := d.w.control.read()
	d.mod.SetGeneration(mc.Generation)
	d.mod.SetSince(mc.Since)
	if v := d.mod.Config().Version; mc.Version != v {
		mc.Previous = mc.Version // for good: nothing fills it but changes and loads
	}
	mc.Name, mc.Version = module, d.mod.Config().Version
	d.put(mc)
	d.w.space.Store(uint32(mc.Version))
	d.w.trace.note(everyKey, "daemon writes key space "+itoa(int(mc.Version)), -1, 0, 0)
}

// raise does as the aggregator and cmd's announcer for a change that touches too
// many keys: once it can be read, the generation is raised, unless it was then.
func (d *daemon) raise(e *event) {
	pass(e.visible - d.w.now())
	mc, _ := d.w.control.read()
	if mc.Since < e.tx.Version {
		mc.Since = e.tx.Version
		mc.Generation++
		d.put(mc)
		d.w.trace.note(everyKey, "daemon raises the generation", -1, e.seq, e.tx.Version)
	}
	d.mod.SetGeneration(mc.Generation)
	d.mod.SetSince(mc.Since)
}

// follow hands on what is new in the control topic.
func (b *nodeBus) follow() {
	mc, n := b.n.w.control.read()
	if n == b.controls || b.apply == nil {
		return
	}
	b.controls = n
	if b.n.w.off.generation {
		mc.Generation = 0
	}
	b.n.w.trace.note(everyKey, "hears of generation "+itoa(int(mc.Generation))+", space "+itoa(int(mc.Version)), b.n.id, 0, mc.Since)
	b.apply(mc.Name, mc.AppendControl(nil))
}

// plan draws when there are new key spaces: for the daemon, and for each node a
// little before or after.
func (w *world) plan() {
	w.space.Store(1)
	d := w.dice(diceBumps)
	span := [2]time.Duration{w.bumpEvery / 2, w.bumpEvery * 3 / 2}
	for at := d.between(span); len(w.bumps) < 1000; at += d.between(span) {
		w.bumps = append(w.bumps, at)
	}
}

func (n *node) plan() []time.Duration {
	out := slices.Clone(n.w.bumps)
	for i := range out {
		out[i] += n.dice.between([2]time.Duration{-6 * time.Second, 3 * time.Second})
	}
	return out
}

func spaceAt(bumps []time.Duration, now time.Duration) uint16 {
	space := uint16(1)
	for _, at := range bumps { // in order
		if at > now {
			break
		}
		space++
	}
	return space
}

func untilNext(bumps []time.Duration, now time.Duration) time.Duration {
	space := spaceAt(bumps, now)
	if int(space) > len(bumps) {
		return time.Hour
	}
	return bumps[space-1] - now
}
