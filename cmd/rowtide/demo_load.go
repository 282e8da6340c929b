package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// The shape of the load. Reads in the rush are bounded by what two cores can do
// beside everything else that runs here.
const (
	shopWriters   = 4
	calmReads     = 500 // per second and node
	rushReads     = 20_000
	calmBuyers    = 20 // requests per second, all buyers together
	rushBuyers    = 24 // buyers who buy as fast as they are served
	rushEvery     = time.Minute
	rushLength    = 10 * time.Second
	readBurst     = 20
	absentPercent = 1 // of reads ask for an event that does not exist
)

// loadState is what the parts of the load share.
type loadState struct {
	length time.Duration
	began  time.Time
	reads  atomic.Int64
	buys   *purchases
}

// rush reports whether the rush is on: the middle third of a run with an end,
// ten seconds of every minute otherwise.
func (l *loadState) rush() bool {
	at := time.Since(l.began)
	if l.length > 0 {
		return at > l.length/3 && at < l.length*2/3
	}
	return at%rushEvery > rushEvery/3 && at%rushEvery < rushEvery/3+rushLength
}

// runLoad blocks until ctx ends and all of the load has stopped.
func (s *shop) runLoad(ctx context.Context, length time.Duration) {
	l := &loadState{length: length, began: time.Now(), buys: s.bought}
	var wg sync.WaitGroup
	for w := range shopWriters {
		wg.Go(func() { s.write(ctx, w) })
	}
	for _, n := range s.nodes {
		wg.Go(func() { s.read(ctx, n, l) })
	}
	for b := range rushBuyers {
		wg.Go(func() { s.buy(ctx, b, l) })
	}
	wg.Go(func() { s.live(ctx, l) })
	wg.Wait()
}

// write changes the shop at its share of the rate: each writer has events of its
// own and goes round them, so that a key is not changed again while it is being
// measured.
func (s *shop) write(ctx context.Context, w int) {
	rng := rand.New(rand.NewPCG(11, uint64(w)))
	every := time.Second * shopWriters / time.Duration(max(s.commitRate, shopWriters))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		id := uint64(1 + (i*shopWriters+w)%shopEvents)
		// A failed change is one that a deadlock or the end of the run took back:
		// nothing was committed, so nothing is expected of the caches.
		_ = s.change(ctx, rng, id)
	}
}

// change is one transaction; most touch one event, some touch a page's other
// tables, a venue (and through it every page of its events), or move a key.
func (s *shop) change(ctx context.Context, rng *rand.Rand, id uint64) error {
	switch rng.IntN(40) {
	case 0:
		_, err := s.db.ExecContext(ctx, "UPDATE shop.venue SET name=? WHERE id=?", fmt.Sprintf("Hall %d", rng.IntN(1e6)), 1+rng.IntN(shopVenues))
		return err
	case 1, 2, 3:
		_, err := s.db.ExecContext(ctx, "UPDATE shop.price_tier SET price=price+0.01 WHERE event_id=?", id)
		return err
	case 4, 5:
		_, err := s.db.ExecContext(ctx, "UPDATE shop.session SET hall=? WHERE event_id=?", fmt.Sprintf("hall %d", rng.IntN(9)), id)
		return err
	case 6: // the row goes and comes back as another
		return s.inTx(ctx, []stmt{
			{"DELETE FROM shop.event WHERE id=?", []any{id}},
			{"INSERT INTO shop.event VALUES (?, ?, ?, 'on_sale', UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), 1)", []any{id, fmt.Sprintf("Event %d again", id), 1 + rng.IntN(shopVenues)}},
		})
	case 7: // the key moves out of the way and back
		return s.inTx(ctx, []stmt{
			{"UPDATE shop.price_tier SET id=id+1000000 WHERE event_id=?", []any{id}},
			{"UPDATE shop.price_tier SET id=id-1000000, price=price+1 WHERE event_id=?", []any{id}},
		})
	}
	k := rowtide.Key{Module: "event", Version: 1, ID: fmt.Sprint(id)}
	measured := s.meter.begin(k)
	_, err := s.db.ExecContext(ctx, "UPDATE shop.event SET rev=rev+1, title=? WHERE id=?", fmt.Sprintf("Event %d, take %d", id, rng.IntN(1e6)), id)
	if measured {
		s.meter.committed(k, time.Now(), err == nil)
	}
	return err
}

type stmt struct {
	query string
	args  []any
}

func (s *shop) inTx(ctx context.Context, stmts []stmt) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, st := range stmts {
		if _, err := tx.ExecContext(ctx, st.query, st.args...); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// read is a node's visitors: few events are popular (Zipf), a page shows several
// at once.
func (s *shop) read(ctx context.Context, n *webNode, l *loadState) {
	rng := rand.New(rand.NewPCG(23, uint64(len(s.nodes))))
	zipf := rand.NewZipf(rng, 1.1, 10, shopEvents-1)
	for ctx.Err() == nil {
		rate := calmReads
		if l.rush() {
			rate = rushReads
		}
		began := time.Now()
		for range readBurst {
			id := 1 + zipf.Uint64()
			if rng.IntN(100) < absentPercent {
				id += 1_000_000
			}
			// The reads' outcome is counted by the cache itself.
			switch rng.IntN(10) {
			case 0:
				_, _ = n.pages.Get(ctx, id)
			case 1:
				_, _ = n.events.GetMany(ctx, []uint64{id, id + 1, id + 2})
			case 2:
				_, _ = n.stock.Get(ctx, saleEvent+":"+saleSKUs[rng.IntN(len(saleSKUs))].sku)
			default:
				_, _ = n.events.Get(ctx, id)
			}
			l.reads.Add(1)
		}
		pause(ctx, time.Second*readBurst/time.Duration(rate)-time.Since(began))
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// The live table: a header once, then a line a second. It fits 120 columns.
const (
	liveHeader = " time      |   lag ms  changes/s  redis/s | commit->node p50, p99 ms | reads/s local redis loader % | holds/s  stock left"
	liveLine   = "%4.0fs %s | %8s   %8d %8d |      %8s %8s   | %7d  %5.1f %5.1f %5.1f  |  %5d   %9d\n"
)

// live prints one line a second.
func (s *shop) live(ctx context.Context, l *loadState) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := s.counters(l)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := s.counters(l)
		p50, p99, lag := s.meter.report()
		phase := "    "
		if l.rush() {
			phase = "RUSH"
		}
		d := now.since(last)
		fmt.Fprintf(s.out, liveLine, time.Since(l.began).Seconds(), phase, ms(lag), d.changes, d.written, ms(p50), ms(p99), d.reads,
			d.share(d.local), d.share(d.redis), d.share(d.loader), d.holds, s.left(ctx))
		last = now
	}
}

// ms prints milliseconds to two places.
func ms(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000)
}

// counters are running totals; the live line shows their growth.
type counters struct {
	changes, written, reads, holds int64
	local, redis, loader           int64
}

func (s *shop) counters(l *loadState) counters {
	st := s.daemon.obs.State()
	c := counters{changes: st.Changes.Load(), written: st.Written.Load(), reads: l.reads.Load(), holds: l.buys.accepted.Load()}
	for _, n := range s.nodes {
		for _, m := range n.cache.Stats().Modules {
			c.local += int64(m.Local)
			c.redis += int64(m.Redis)
			c.loader += int64(m.Loader)
		}
	}
	return c
}

func (c counters) since(o counters) counters {
	return counters{
		c.changes - o.changes, c.written - o.written, c.reads - o.reads, c.holds - o.holds,
		c.local - o.local, c.redis - o.redis, c.loader - o.loader,
	}
}

func (c counters) share(n int64) float64 {
	if sum := c.local + c.redis + c.loader; sum > 0 {
		return 100 * float64(n) / float64(sum)
	}
	return 0
}

// left is the stock that a node's page shows: the end of the loop.
func (s *shop) left(ctx context.Context) int64 {
	var sum int64
	for _, k := range saleSKUs {
		v, err := s.nodes[0].stock.Get(ctx, saleEvent+":"+k.sku)
		if err != nil && !errors.Is(err, localsync.ErrNotFound) {
			continue
		}
		sum += v.Avail
	}
	return sum
}
