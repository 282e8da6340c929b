package localsync

import (
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// errHole is the cause of a gap in a producer's sequence.
var errHole = errors.New("records are missing from the producer's sequence")

// intake is the cache's side of the bus. Nothing here waits for anything but a
// shard's lock, which is never held around I/O (race R23).
type intake struct{ c *Cache }

// Record implements Sink.
func (in intake) Record(part int32, record []byte) {
	c := in.c
	l := c.layout.Load()
	if part < 0 || int(part) >= len(l.streams) {
		c.bs.undecodable.Add(1)
		return
	}
	now := c.now()
	b, err := rowtide.DecodeBatch(record)
	if err != nil {
		// It may have named any key of the partition.
		c.bs.undecodable.Add(1)
		c.suspect(part, now, err)
		return
	}
	s := l.streams[part]
	first := !s.heads.heard
	if first {
		// Not up to now: what this very record brings is kept as of now.
		c.concerning(part, func(p *partition) { raise(&p.firstBefore, now-1) })
	}
	if s.heads.observe(&b, now) {
		c.suspect(part, now, fmt.Errorf("producer %x at %d: %w", b.Producer, b.Sequence, errHole))
	}
	misplaced := false
	for i := range b.Items {
		misplaced = c.apply(&b.Items[i], &b, s.upTo, now) != part || misplaced
	}
	if misplaced && !l.mixed {
		c.resized(int32(len(l.streams)), true, errMisplaced) //nolint:gosec // partitions are counted in int32
	}
	// After the items: a watermark says that all up to it has been applied.
	c.marks.add(now, b.Watermark)
	s.upTo = max(s.upTo, b.Watermark)
	if !l.mixed {
		c.parts[part].toldTo.Store(uint64(s.upTo))
	}
	s.lag.Store(c.bs.heard(&b, c.opt.Now()))
	late, current := s.pace.current(now, int64(b.SentAt.Sub(c.clock.start)), int64(c.opt.Silence))
	if !current {
		return
	}
	before := s.knownAt.Load()
	raise(&s.heardAt, now-late)
	known := now - late - int64(b.Behind)
	if first {
		s.knownAt.Store(known) // the pin was no better than the daemon behind it
	} else {
		raise(&s.knownAt, known)
	}
	c.share(l, part)
	silentFor := s.knownAt.Load() - before
	if silentFor > int64(c.opt.Silence) {
		c.opt.Logger.Info("bus is heard again", "partition", part, "silent_for", time.Duration(silentFor))
	}
}

// Lost implements Sink.
func (in intake) Lost(part int32, cause error) {
	if part < 0 || int(part) >= len(in.c.layout.Load().streams) {
		return
	}
	in.c.suspect(part, in.c.now(), cause)
}

// Partitions implements Sink.
func (in intake) Partitions(n int32) {
	if n > 0 && int(n) != len(in.c.layout.Load().streams) {
		in.c.resized(n, false, errResized)
	}
}

// suspect puts everything of a partition in doubt with one store: no walk, no
// flush, no stampede. Each entry is checked against Redis when it is next read.
func (c *Cache) suspect(part int32, now int64, cause error) {
	c.concerning(part, func(p *partition) { p.suspect(now) })
	c.bs.gaps.Add(1)
	if l := c.layout.Load(); int(part) < len(l.streams) { // else it has just gone
		l.streams[part].gaps.Add(1)
		l.streams[part].lostAt.Store(now)
	}
	c.opt.Logger.Warn("invalidations missed; checking entries against redis as they are read",
		"partition", part, "cause", cause)
	c.opt.Observer.Suspect(part, cause)
}

// concerning calls do with each part of the keys that may be told of on a partition.
func (c *Cache) concerning(part int32, do func(*partition)) {
	if c.layout.Load().mixed {
		for i := range c.parts {
			do(&c.parts[i])
		}
	} else if int(part) < len(c.parts) {
		do(&c.parts[part])
	}
}

// apply raises one key's floor, resident or not, and swaps a pushed value in if
// the key is resident. It returns the partition that a producer which counts them
// as this node did at Open would have told it on. A value up to told is no news: a
// repetition, perhaps of what stood before a change that was missed.
func (c *Cache) apply(inv *rowtide.Invalidation, b *rowtide.Batch, told rowtide.Version, now int64) int32 {
	resident, part := c.raise(inv, now)
	c.bs.applied.Add(1)
	if resident && inv.Version > told && (inv.Value != nil || inv.Empty) {
		c.push(inv, b, now)
	}
	c.opt.Observer.Applied(*inv, b)
	return part
}

// raise raises one key's floor; part is as apply returns it.
func (c *Cache) raise(inv *rowtide.Invalidation, now int64) (resident bool, part int32) {
	var stack [96]byte
	hash := nameHash(appendLocalName(stack[:0], inv.Key))
	part = inv.Key.Partition(c.partitions)
	return c.store.raise(hash, uint16(part), inv.Version, now), part
}

// push keeps the new state that the invalidation itself tells: a value, or that
// there is none.
func (c *Cache) push(inv *rowtide.Invalidation, b *rowtide.Batch, now int64) {
	m, ok := (*c.modules.Load())[moduleID{inv.Key.Module, inv.Key.Version}]
	if !ok {
		return
	}
	if !m.current(inv.Version) {
		return // built before all of the module was to be read again
	}
	rules := m.rules()
	e := rowtide.Entry{Key: inv.Key, Version: inv.Version, BuiltAt: b.SentAt, TTL: rules.value.TTL, Payload: inv.Value}
	if inv.Empty {
		e.Flags, e.TTL, e.Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, rules.empty.TTL, nil
	}
	w := rules.window(inv.Empty)
	// A refusal leaves the entry marked: the next read goes to Redis.
	c.store.keep(&candidate{slot: c.slot(inv.Key), entry: e, began: now, soft: w.Refresh, hard: w.TTL, turnedAt: m.live.turnedAt.Load()}, now)
}
