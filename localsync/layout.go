package localsync

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide"
)

// unknownPartitions is how many parts the keys are divided into while nobody
// knows how many partitions the topic has: the daemon's own default, so that each
// part has its partition again once the bus is there.
const unknownPartitions = 12

var (
	errResized   = errors.New("the topic has another number of partitions than before")
	errMisplaced = errors.New("a record names a key of another partition: its producer counts other partitions than this node")
)

// stream is what this node knows of one partition of the topic; see [layout].
type stream struct {
	heardAt atomic.Int64 // up to when all was heard: when the last record of now came, less what it was late
	knownAt atomic.Int64 // the same, less what the daemon itself was behind
	lostAt  atomic.Int64 // when records were last missed
	// For statistics: of the last record, from its sending; times records were missed.
	lag  atomic.Int64
	gaps atomic.Uint64

	// Of the bus goroutine only.
	heads heads
	pace  pace
	upTo  rowtide.Version // all up to it has been told; see Batch.Watermark
}

// layout is the topic's partitions. A key's part of this node ([Cache].parts) is
// settled at Open, its partition is the daemon's choice and changes with their
// number. While both are counted alike, what happens to a stream concerns the part
// of its number. Else (mixed) a key may be heard of on any stream, and what happens
// to one concerns all parts.
type layout struct {
	streams []*stream // none before the bus was reached
	mixed   bool
}

// repartition follows the topic to n partitions, whose ends are pinned. All that
// was kept before is in doubt: changes may have been told where nobody listened.
func (c *Cache) repartition(n int32, mixed bool) (changed bool) {
	c.laying.Lock()
	defer c.laying.Unlock()
	old := c.layout.Load()
	next := &layout{streams: make([]*stream, n), mixed: mixed || int(n) != len(c.parts)}
	if len(old.streams) == int(n) && old.mixed == next.mixed {
		return false
	}
	now := c.now()
	for p := copy(next.streams, old.streams); p < int(n); p++ {
		next.streams[p] = &stream{}
		// The pin is as good as a record: silence counts from here.
		next.streams[p].heardAt.Store(now)
		next.streams[p].knownAt.Store(now)
	}
	c.layout.Store(next)
	if len(old.streams) > 0 || c.opt.Away == AwayDegraded { // else nothing was kept
		for i := range c.parts {
			c.parts[i].suspect(now)
		}
	}
	// Only now: a part that is heard is trusted, except for what is in doubt.
	for p := range next.streams {
		c.share(next, int32(p)) //nolint:gosec // partitions are counted in int32
	}
	return true
}

// share tells the parts that a stream concerns when it was heard.
func (c *Cache) share(l *layout, part int32) {
	if !l.mixed {
		c.parts[part].heardAt.Store(l.streams[part].heardAt.Load())
		c.parts[part].knownAt.Store(l.streams[part].knownAt.Load())
		return
	}
	heard, known := l.streams[0].heardAt.Load(), l.streams[0].knownAt.Load()
	for _, s := range l.streams[1:] {
		heard, known = min(heard, s.heardAt.Load()), min(known, s.knownAt.Load())
	}
	for i := range c.parts {
		c.parts[i].heardAt.Store(heard)
		c.parts[i].knownAt.Store(known)
	}
}

// resized is repartition with a word about it.
func (c *Cache) resized(n int32, mixed bool, cause error) {
	had := len(c.layout.Load().streams)
	if !c.repartition(n, mixed) {
		return
	}
	c.bs.resized.Add(1)
	c.opt.Logger.Error("topic's partitions are not as they were; checking all entries against redis as they are read. "+
		"Restart the daemon if it started before the change; a fault of one partition concerns all keys until this node is restarted",
		"had", had, "has", n, "cause", cause)
	c.opt.Observer.Suspect(-1, cause)
}

func (s *stream) snapshot(now int64, silence time.Duration) PartitionStats {
	out := PartitionStats{
		Heard: time.Duration(now - s.knownAt.Load()), Lag: time.Duration(s.lag.Load()), Gaps: s.gaps.Load(),
	}
	out.Silent = out.Heard > silence
	if out.Gaps > 0 {
		out.Suspect = time.Duration(now - s.lostAt.Load())
	}
	return out
}
