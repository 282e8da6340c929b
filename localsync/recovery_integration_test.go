//go:build integration

package localsync_test

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

// redisReads counts how often each key is read from Redis, as the client sends it.
type redisReads struct {
	mu   sync.Mutex
	keys map[string]int
}

func (a *redisReads) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (a *redisReads) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		a.count(cmd)
		return next(ctx, cmd)
	}
}

func (a *redisReads) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			a.count(cmd)
		}
		return next(ctx, cmds)
	}
}

func (a *redisReads) count(cmd redis.Cmder) {
	if name := cmd.Name(); name != "get" && name != "mget" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range cmd.Args()[1:] {
		a.keys[key.(string)]++
	}
}

// since is what was counted since the last call: of the key read least, of the one
// read most, of all n together.
func (a *redisReads) since(n int) (least, most, all int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	least, most, all = a.tally(n)
	clear(a.keys)
	return least, most, all
}

func (a *redisReads) leastOf(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	least, _, _ := a.tally(n)
	return least
}

// tally needs the lock.
func (a *redisReads) tally(n int) (least, most, all int) {
	for _, times := range a.keys {
		all, most = all+times, max(most, times)
		if least == 0 || times < least {
			least = times
		}
	}
	if len(a.keys) < n {
		least = 0
	}
	return least, most, all
}

// readAll has goroutines read the keys at random, half of the time one of the first
// ten, until stop is called, which returns how many reads there were.
func readAll(t *testing.T, m *events, readers, keys int) (stop func() (reads int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	counts := make([]int, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			for ctx.Err() == nil {
				for range 20 {
					id := rand.Int64N(int64(keys))
					if rand.IntN(2) == 0 {
						id %= 10
					}
					counts[i]++
					v, info, err := m.Lookup(t.Context(), id)
					if err != nil || versionOf(v) != uint64(info.Version) || info.Stale {
						t.Errorf("event %d is %q, %+v, %v", id, v, info, err)
						cancel()
						return
					}
				}
				// A pause, for the broker is on the same cores.
				select {
				case <-time.After(5 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	stop = sync.OnceValue(func() (reads int) {
		cancel()
		wg.Wait()
		for _, n := range counts {
			reads += n
		}
		return reads
	})
	t.Cleanup(func() { stop() })
	return stop
}

// openCounted opens one more node, whose reads of Redis are counted. Heartbeats that a
// busy machine delays must not pass for a silence.
func (r *rig) openCounted(a *redisReads) *localsync.Cache {
	r.t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(r.t)})
	r.t.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(a)
	c, err := localsync.Open(r.t.Context(), localsync.Options{
		Redis: rdb, Brokers: r.b.brokers, Topic: r.b.topic, Prefix: r.prefix, MaxBytes: 8 << 20, Logger: silentLog(), RedisTimeout: patience,
		ReportEvery: -1, // its reads would be counted
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

// beats sends heartbeats until stop is called.
func (r *rig) beats() (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			r.beat()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	r.t.Cleanup(stop)
	return stop
}

// The bus falls silent and comes back under eight busy readers. While it is silent
// each key is checked once per MaxStale, however many want it; when it is back there is
// nothing to make up for. The loader hears of none of it, and all stays where it is.
func TestIntegration_RecoveryIsNoStampede(t *testing.T) {
	const keys, readers, maxStale = 1000, 8, time.Second
	kafka, err := testenv.StartKafka(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kafka.Stop(context.Background()) })
	r, o, a := newRigOn(t, kafka.Brokers()), newOrigin(), &redisReads{keys: map[string]int{}}
	c := r.openCounted(a)
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "event", MaxStale: maxStale, Refresh: time.Hour}, localsync.Codec[string](text{}), o.load)
	if err != nil {
		t.Fatal(err)
	}
	mute := r.beats()
	// What is kept before a partition's first record is checked once it comes (race R11).
	eventually(t, "each partition is heard of", func() bool {
		for _, p := range c.Stats().Bus.ByPartition {
			if p.Lag == 0 {
				return false
			}
		}
		return true
	})
	var ids []int64
	for id := range int64(keys) {
		ids = append(ids, id)
		r.keep(id, 100)
	}
	if got, err := m.GetMany(t.Context(), ids); err != nil || len(got) != keys {
		t.Fatalf("%d values, %v", len(got), err)
	}
	a.since(keys)
	stop := readAll(t, m, readers, keys)

	killed := time.Now()
	mute()
	if err := kafka.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reads say that nothing is heard", func() bool {
		_, info, err := m.Lookup(t.Context(), 1)
		return err == nil && info.Degraded
	})
	eventually(t, "each key was checked twice", func() bool { return a.leastOf(keys) >= 2 })
	if err := kafka.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.b = newBroker(t, r.b.brokers, r.b.topic) // the one before may take 10 s to believe in the return
	r.beats()
	eventually(t, "the bus is heard again", func() bool { return c.Stats().Bus.Silent == 0 })
	silent := time.Since(killed)
	least, most, all := a.since(keys)
	once := int(silent/maxStale) + 1 // checks stand at both ends of a period
	t.Logf("silent for %v: each key checked %d to %d times, %d checks in all", silent, least, most, all)
	// Who found an entry too old just before another's check of it ended checks it again:
	// a matter of nanoseconds, which a few of many meet.
	if most > once+readers/2 || all > keys*once {
		t.Errorf("one key was checked %d times, all together %d; want %d, %d: once per %v", most, all, once, keys*once, maxStale)
	}

	// Back again, with news of ten keys: these are read once each, and no other.
	const changed = 10
	for id := range int64(changed) {
		r.keep(id, rowtide.Version(200+id))
		r.invalidate(id, rowtide.Version(200+id))
	}
	eventually(t, "all is heard", func() bool { return c.Stats().Bus.Applied == changed })
	<-time.After(3 * maxStale)
	_, most, all = a.since(keys)
	t.Logf("%v after the return: %d reads of Redis, at most %d of one key", 3*maxStale, all, most)
	// Readers may have been on their way when the last partition was heard.
	if all > changed+2*readers {
		t.Errorf("%d reads of Redis after the return, want one for each of %d changes", all, changed)
	}
	reads := stop()
	t.Logf("%d reads", reads)
	r.allResident(c, ids)
	if n := o.loads(); n != 0 {
		t.Errorf("%d loads, want none", n)
	}
	if info := want(t, m, 0, number(200)); info.Degraded || info.Level != localsync.LevelLocal {
		t.Errorf("%+v, want it local, and all well", info)
	}
}

// allResident checks that nothing was thrown away or put in doubt.
func (r *rig) allResident(c *localsync.Cache, ids []int64) {
	r.t.Helper()
	for _, id := range ids {
		if _, ok := c.Peek(eventKey(id)); !ok {
			r.t.Errorf("event %d would not be served from memory", id)
		}
	}
	s := c.Stats()
	if s.Store.Evicted != 0 || s.Bus.Gaps != 0 {
		r.t.Errorf("%d evicted, %d gaps; want none", s.Store.Evicted, s.Bus.Gaps)
	}
	if m := s.Modules[0]; m.Errors+m.Stale+m.RedisErrors+m.Refreshes != 0 {
		r.t.Errorf("%+v: not all was well", m)
	}
}

// keep puts a value that tells its version into Redis, for longer than put does.
func (r *rig) keep(id int64, v rowtide.Version) {
	r.t.Helper()
	e := rowtide.Entry{Key: eventKey(id), Version: v, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(number(uint64(v)))}
	if err := r.rdb.Set(r.t.Context(), e.Key.Redis(r.prefix), e.AppendEnvelope(nil), time.Hour).Err(); err != nil {
		r.t.Fatal(err)
	}
}
