package localsync_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

func leaseKey(id int64) string { return "rowtide:~lease:{" + eventKey(id).Redis("rowtide") + "}" }

// hold takes the lease of a key in the name of a node that is not there.
func (n *node) hold(id int64) {
	n.t.Helper()
	if err := n.mr.Set(leaseKey(id), strings.Repeat("x", 32)); err != nil {
		n.t.Fatal(err)
	}
}

func leaseWait(d time.Duration) func(*localsync.ModuleConfig[int64]) {
	return func(c *localsync.ModuleConfig[int64]) { c.LeaseWait = d }
}

// fill is another node's loaded value in Redis.
func (n *node) fill(id int64, v rowtide.Version, value string) {
	e := rowtide.Entry{Key: eventKey(id), Version: v, Flags: rowtide.FlagFill, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte(value)}
	if err := n.mr.Set(eventKey(id).Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		n.t.Fatal(err)
	}
}

// fillOnceHeld has a node wait for a key that then appears.
func (n *node) fillOnceHeld(m *member, id int64) {
	n.t.Helper()
	before := m.stats().LeaseWaits
	got := ask(n.t.Context(), m.shows, id)
	eventually(n.t, "it waits", func() bool { return m.stats().LeaseWaits == before+1 })
	n.fill(id, 100, "v")
	if a := <-got; a.value != "v" {
		n.t.Fatalf("got %+v, want v", a)
	}
}

func TestLease_TwoHundredNodesMissOneKeyAndOneLoadsIt(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	f := n.fleet(200, o)
	reached, release := pause(o)
	var asked []<-chan answer
	for _, m := range f {
		asked = append(asked, ask(t.Context(), m.shows, 1))
	}
	await(t, "the load", reached)
	eventually(t, "all others wait", func() bool { return f.sum(waits) == 199 })
	close(release)
	levels := map[localsync.Level]int{}
	for _, ch := range asked {
		a := reply(t, ch)
		if a.err != nil || a.value != "v" || a.info.Stale || a.info.Version != 100 {
			t.Fatalf("got %+v, want v at 100", a)
		}
		levels[a.info.Level]++
	}
	if got := o.loads(); got != 1 || levels[localsync.LevelRedis] != 199 {
		t.Fatalf("%d loads, %v; want one, and 199 reads of redis", got, levels)
	}
	if got := f.sum(timeouts); got != 0 {
		t.Fatalf("%d waits timed out", got)
	}
	if ttl := n.mr.TTL(leaseKey(1)); ttl != time.Millisecond {
		t.Fatalf("the lease ends in %v, want a millisecond", ttl)
	}
}

// A key that changes all the time is in Redis all the time.
func TestLease_PopularKeyUpdatedAHundredTimesASecondCausesNoLoad(t *testing.T) {
	n, o := newNode(t), newOrigin()
	f := n.fleet(4, o)
	n.put(1, 101, number(101))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var reads [8]int
	for i := range reads {
		readers.Go(func() {
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for m, last := f[i%len(f)], uint64(0); ; reads[i]++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				got, err := m.shows.Get(t.Context(), 1)
				if v := versionOf(got); err != nil || v < last {
					t.Errorf("read %q after %d: %v", got, last, err)
					return
				} else {
					last = v
				}
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for v := rowtide.Version(102); v < 302; v++ { // two seconds
		<-tick.C
		n.put(1, v, number(uint64(v)))
		f.invalidate(n.clock, 1, v, v)
	}
	close(stop)
	readers.Wait()
	for i := range f {
		want(t, f[i].shows, 1, number(301))
	}
	t.Logf("reads: %v", reads)
	if o.loads() != 0 {
		t.Fatalf("%d loads, want none", o.loads())
	}
}

// What was waited for is judged like anything that Redis holds.
func TestLease_ResultOfAWaitObeysTheFloor(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "old")
	f := n.fleet(2, o)
	reached, release := pause(o)
	first := ask(t.Context(), f[0].shows, 1)
	await(t, "the load", reached)
	second := ask(t.Context(), f[1].shows, 1)
	eventually(t, "the second waits", func() bool { return f.sum(waits) == 1 })
	f[1].invalidate(n.clock, 1, 200, 100)
	o.set(1, "new")
	close(release)
	if a := reply(t, first); a.value != "old" || a.info.Version != 100 {
		t.Fatalf("first got %+v, want what it loaded", a)
	}
	if a := reply(t, second); a.value != "new" || !a.info.Stale {
		t.Fatalf("second got %+v, want its own load, marked", a)
	}
	if e, ok := f[1].cache.Peek(eventKey(1)); ok {
		t.Fatalf("second keeps %q at %d, below its floor", e.Payload, e.Version)
	}
}

func TestLease_RefreshOfOneKeyIsDoneByOneNode(t *testing.T) {
	n, o := newNode(t), newOrigin()
	f := n.fleet(20, o)
	n.put(1, 90, "v")
	for _, m := range f {
		want(t, m.shows, 1, "v")
	}
	f.idle(t)
	o.set(1, "v")
	f.pass(n.clock, 100, 2*time.Minute)
	reached, release := pause(o)
	for _, m := range f {
		if info := want(t, m.shows, 1, "v"); info.Stale || info.Level != localsync.LevelLocal {
			t.Fatalf("%+v, want the local value", info)
		}
	}
	await(t, "the refresh", reached)
	eventually(t, "the other refreshes have ended", func() bool {
		return f.sum(func(s localsync.ModuleStats) uint64 { return uint64(s.Loading) }) == 1
	})
	for _, m := range f {
		want(t, m.shows, 1, "v") // hushed
	}
	close(release)
	f.idle(t)
	if o.loads() != 1 || f.sum(waits) != 0 {
		t.Fatalf("%d loads, %d waits; want one load and nobody waiting", o.loads(), f.sum(waits))
	}
	// A second later the others find its result in Redis.
	f.pass(n.clock, 100, 2*time.Second)
	for _, m := range f {
		want(t, m.shows, 1, "v")
	}
	f.idle(t)
	for i, m := range f {
		if e, ok := m.cache.Peek(eventKey(1)); !ok || e.Version != 100 {
			t.Fatalf("node %d is at %d, want the refreshed 100", i, e.Version)
		}
	}
	if o.loads() != 1 {
		t.Fatalf("%d loads, want one", o.loads())
	}
}

// takes counts the round trips that take leases.
type takes struct {
	mu sync.Mutex
	n  int
}

func (h *takes) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *takes) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *takes) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, c := range cmds {
			if args := c.Args(); len(args) > 5 && fmt.Sprint(args[5]) == "take" {
				h.mu.Lock()
				h.n++
				h.mu.Unlock()
				break
			}
		}
		return next(ctx, cmds)
	}
}

func TestLease_ThousandsOfKeysTakeOneRoundTrip(t *testing.T) {
	n, o := newNode(t), newOrigin()
	ids := make([]int64, 3000)
	for i := range ids {
		ids[i] = int64(i)
		o.set(ids[i], fmt.Sprint("v", i))
	}
	f := n.fleet(2, o)
	want(t, f[0].shows, 5000, "") // the script is loaded
	h := &takes{}
	n.rdb.AddHook(h)
	reached, release := pause(o)
	type batch struct {
		got map[int64]string
		err error
	}
	done := make(chan batch, 2)
	getAll := func(m *member) {
		got, err := m.shows.GetMany(t.Context(), ids)
		done <- batch{got, err}
	}
	go getAll(f[0])
	await(t, "the loads", reached)
	go getAll(f[1])
	eventually(t, "the second waits", func() bool { return f[1].stats().LeaseWaits > 0 })
	close(release)
	for range 2 {
		b := <-done
		if b.err != nil || len(b.got) != len(ids) || b.got[2999] != "v2999" {
			t.Fatalf("%d values, %v", len(b.got), b.err)
		}
	}
	if got := o.loads(); got != 31 {
		t.Fatalf("%d loads, want 30 of 100 and one", got)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// One each, and a few when the second found that what it saw had changed.
	if h.n > 6 {
		t.Fatalf("%d round trips took leases", h.n)
	}
}
