package simulation

import (
	"context"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// off says which protections are switched off. Each is done from the outside, by a
// part around the real code that does its work badly; the real code has no switch.
type off struct {
	compare    bool // Redis takes whatever comes, as a plain SET would
	fence      bool // Redis does not compare terms
	floors     bool // an invalidation only reaches nodes that hold the key: nothing is remembered of others
	watermark  bool // loaded values claim the newest position heard of
	gaps       bool // records are numbered as they arrive, so that none ever misses
	silence    bool // a silent bus is never noticed
	pin        bool // a node reads the end of the log some time after its store is open (R11)
	first      bool // the first record that a node hears is forged, and says that none is missing from then on (R11)
	fills      bool // a loader fills a missing key by itself, whatever the node knows (R6)
	epochs     bool // a new source's positions do not start a new epoch
	order      bool // Kafka first, then Redis, without waiting for it
	repair     bool // a failover of Redis that lost writes goes unnoticed
	checkpoint bool // saved when a transaction is taken in, not when it is acknowledged
	pace       bool // what an outage kept back is heard as if it had just been sent
	forgotten  bool // that floors were forgotten is forgotten, too
	overtaken  bool // a load that was under way when records were missed gives the same when it is done again
	behind     bool // what Redis gives bears the newest version that the node has heard of, whatever it is
	look       bool // the second look at Redis sees what the first one saw
	generation bool // nodes do not hear of a raised generation
	before     bool // a load has read before it was asked: the watermark is taken after it
	previous   bool // what the old key space holds is given out as the new one's
}

// hasty broadcasts first and leaves Redis to itself.
type hasty struct {
	aggregator.Sink
	w *world
}

func (hasty) Overwrite(context.Context, []rowtide.Entry) error { return nil }

func (h hasty) Broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error {
	kept := append([]rowtide.Entry(nil), entries...)
	for i := range kept {
		kept[i].Payload = append([]byte(nil), kept[i].Payload...)
	}
	err := h.Sink.Broadcast(ctx, entries, watermark, oldest)
	if err == nil && len(kept) > 0 {
		h.w.wg.Go(func() {
			pass(h.w.topic.dice.upTo(300 * time.Millisecond))
			ignore(h.Sink.Overwrite(h.w.life, kept))
		})
	}
	return err
}

// strip leaves only invalidations of keys that a read would find.
func (b *nodeBus) strip(r *rowtide.Batch) {
	kept := r.Items[:0]
	for _, it := range r.Items {
		if _, ok := b.n.cache().Peek(it.Key); ok {
			kept = append(kept, it)
		}
	}
	if len(kept) == 0 && len(r.Items) > 0 { // not a heartbeat, which counts differently
		kept = append(kept, rowtide.Invalidation{Key: rowtide.Key{Module: "none", Version: 1, ID: "0"}, Version: 1})
	}
	r.Items = kept
}

// renumber hides what is missing.
func (b *nodeBus) renumber(part int32, r *rowtide.Batch) {
	if !r.Heartbeat() {
		b.heard[part]++
	}
	r.Producer, r.Sequence = 1<<40, b.heard[part]
}
