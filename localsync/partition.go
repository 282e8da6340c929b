package localsync

import (
	"sync/atomic"

	"github.com/rowtide/rowtide"
)

// never is a time before the cache's clock began.
const never = -1

// partition is what this node knows of the keys of one part, which are those of one
// partition of the bus (but see [layout]). The bus writes, readers look; every
// field is one atomic word, so neither waits for the other (race R23).
type partition struct {
	// suspectBefore: entries verified before this instant may have missed an
	// invalidation. Marking a whole partition is one store, whatever it holds.
	suspectBefore atomic.Int64
	// firstBefore: entries verified up to this instant were kept before the first record
	// came. One before it may have been lost, which nothing can tell (race R11); so they
	// are checked as well. It says nothing against what is under way.
	firstBefore atomic.Int64
	// heardAt is since when nothing more was heard of these keys, knownAt since when
	// something may have been committed that was not: earlier, while the daemon is behind.
	heardAt, knownAt atomic.Int64
	// toldTo: every change up to this version was told, of these keys.
	toldTo atomic.Uint64
	// forgotAt and forgotten: floors up to version forgotten were dropped at
	// forgotAt. A Redis read that began before, and any loaded value below, may
	// be older than a floor that is no longer known.
	forgotAt  atomic.Int64
	forgotten atomic.Uint64
}

func newPartitions(n int32, heardAt int64) []partition {
	ps := make([]partition, n)
	for i := range ps {
		ps[i].suspectBefore.Store(never)
		ps[i].firstBefore.Store(never)
		ps[i].forgotAt.Store(never)
		ps[i].heardAt.Store(heardAt)
		ps[i].knownAt.Store(heardAt)
	}
	return ps
}

// forget notes that floors up to v are gone. The floors' lock is held, so that no
// value can be kept between the two.
func (p *partition) forget(now int64, v rowtide.Version) {
	for old := p.forgotten.Load(); uint64(v) > old && !p.forgotten.CompareAndSwap(old, uint64(v)); {
		old = p.forgotten.Load()
	}
	raise(&p.forgotAt, now)
}

// suspect marks all that was verified before now.
func (p *partition) suspect(now int64) { raise(&p.suspectBefore, now) }

// doubt is the instant up to which what was verified is to be checked.
func (p *partition) doubt() int64 { return max(p.suspectBefore.Load(), p.firstBefore.Load()) }

func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); {
		old = a.Load()
	}
}

// heads follows the dense sequence of each producer of a partition.
type heads struct {
	heard  bool
	latest uint64 // sequence of the record heard last, whoever sent it
	last   map[uint64]head
}

type head struct {
	sequence uint64
	heardAt  int64
}

// maxHeads bounds the producers remembered per partition. One daemon run is one
// producer; two at once is a switch-over, sixteen is a restart loop.
const maxHeads = 16

// observe takes note of a record and reports whether any before it was missed.
func (h *heads) observe(b *rowtide.Batch, now int64) (missed bool) {
	if h.last == nil {
		h.last = map[uint64]head{}
	}
	// What sequence number would prove that nothing is missing: a heartbeat
	// repeats the last one given out, a batch has the next.
	before := b.Sequence
	if !b.Heartbeat() && before > 0 {
		before--
	}
	known, ok := h.last[b.Producer]
	switch {
	case ok:
		missed = before > known.sequence
	case h.heard && before > 0:
		// A producer that starts while we listen goes on from the record that was
		// the log's last, which must be ours, and its first record must be the one
		// after. Only in a new log does it start at the beginning. A second daemon
		// that wrote in between makes this a false alarm.
		base := rowtide.ProducerBase(b.Producer)
		missed = before != base || base != h.latest
	}
	h.heard, h.latest = true, b.Sequence
	h.last[b.Producer] = head{max(known.sequence, b.Sequence), now}
	if len(h.last) > maxHeads {
		h.dropOldest()
	}
	return missed
}

func (h *heads) dropOldest() {
	var victim uint64
	oldest := int64(-1)
	for id, e := range h.last {
		if oldest < 0 || e.heardAt < oldest {
			victim, oldest = id, e.heardAt
		}
	}
	delete(h.last, victim)
}
