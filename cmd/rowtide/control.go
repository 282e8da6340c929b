package main

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/publisher"
)

// announcer tells the nodes of the modules: their settings, and generations.
type announcer struct {
	ctl   *publisher.Control
	epoch func() uint32

	mu    sync.Mutex
	known map[string]rowtide.ModuleControl
}

func newAnnouncer(ctl *publisher.Control, epoch func() uint32) *announcer {
	a := &announcer{ctl: ctl, epoch: epoch, known: map[string]rowtide.ModuleControl{}}
	for _, m := range ctl.State() {
		a.known[m.Name] = m
	}
	return a
}

// announce tells the nodes the modules' settings, and gives the modules, which are
// not in use yet, the generations that the nodes know of. It blocks until Kafka has
// them.
func (a *announcer) announce(ctx context.Context, modules []*aggregator.Module) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	since, err := rowtide.NewVersion(a.epoch(), 0, 1) // all that will be written is newer
	if err != nil {
		return err
	}
	var all []rowtide.ModuleControl
	for _, m := range modules {
		c := m.Config()
		mc := a.known[c.Name]
		if mc.Version != 0 && mc.Version != c.Version {
			mc.Previous = mc.Version // until it is filled, whoever does it
		}
		if mc.Version > c.Version {
			// It was in use before: what it has of keys that were deleted since is old.
			mc.Generation++
			mc.Since = since
		}
		mc.Name, mc.Version, mc.Epoch = c.Name, c.Version, a.epoch()
		mc.Settings = rowtide.ModuleSettings{
			TTL: c.TTL, Refresh: c.Refresh, EmptyTTL: c.Empty.TTL, EmptyRefresh: c.Empty.Refresh,
			OnError: c.OnError, MaxStale: c.MaxStale, Push: c.Push, Codec: c.Codec,
		}
		all = append(all, mc)
	}
	if err := a.put(ctx, all...); err != nil {
		return err
	}
	for _, m := range modules {
		mc := a.known[m.Config().Name]
		m.SetGeneration(mc.Generation)
		m.SetSince(mc.Since)
	}
	return nil
}

// filling reports whether the key space of m's version is not known to be filled
// since the version changed. On nil it is not asked.
func (a *announcer) filling(m *aggregator.Module) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	mc := a.known[m.Config().Name]
	return mc.Previous != 0 && mc.Version == m.Config().Version
}

// filled tells the nodes that the former key spaces of these modules ("name/version")
// no longer stand in.
func (a *announcer) filled(ctx context.Context, modules []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var over []rowtide.ModuleControl
	for _, mc := range a.known {
		if mc.Previous != 0 && slices.Contains(modules, moduleID(mc.Name, mc.Version)) {
			mc.Previous = 0
			over = append(over, mc)
		}
	}
	return a.put(ctx, over...)
}

// put writes records and remembers them; a.mu is held.
func (a *announcer) put(ctx context.Context, all ...rowtide.ModuleControl) error {
	if err := a.ctl.Put(ctx, all); err != nil {
		return err
	}
	for _, m := range a.ctl.State() { // Put may have found a higher generation
		a.known[m.Name] = m
	}
	return nil
}

// Raise implements aggregator.Generations.
func (a *announcer) Raise(ctx context.Context, module string, since rowtide.Version) (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	mc := a.known[module]
	if mc.Since >= since {
		return mc.Generation, nil // a replay; it was raised then
	}
	mc.Name, mc.Since = module, since
	mc.Generation++
	if err := a.put(ctx, mc); err != nil {
		return 0, err
	}
	return a.known[module].Generation, nil
}

// letters puts an aggregator's faults among the dead letters.
type letters struct{ dlq *publisher.DeadLetters }

// SetAside implements aggregator.DeadLetters.
func (l letters) SetAside(ctx context.Context, faults []aggregator.Fault) error {
	for _, f := range faults {
		letter := rowtide.DeadLetter{
			Position: f.Position, Version: f.Version, Module: f.Module, Op: f.Op, Key: f.Key, Reason: f.Err.Error(), At: time.Now(),
		}
		if f.Table != nil {
			letter.Table = f.Table.String()
			letter.Row = rowJSON(f.Table.Columns, f.Row)
		}
		if err := l.dlq.Put(ctx, letter); err != nil {
			return err
		}
	}
	return nil
}

// rowJSON is a row as a JSON object; a column that has no JSON form says why.
func rowJSON(cols []string, row []rowtide.Value) json.RawMessage {
	if row == nil {
		return nil
	}
	out := []byte{'{'}
	for i, v := range row {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(rowtide.AppendJSONString(out, cols[i]), ':')
		next, err := rowtide.AppendValue(out, v)
		if err != nil {
			next = rowtide.AppendJSONString(out, err.Error())
		}
		out = next
	}
	return append(out, '}')
}
