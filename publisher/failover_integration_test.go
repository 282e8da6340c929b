//go:build integration

package publisher_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// lossy is a deployment whose failover loses what was written since the replica
// was cut off.
type lossy struct {
	rdb     redis.UniversalClient
	replica *testenv.RedisServer
	crash   func() error // the primary dies and the replica takes over
}

// cutOff breaks the replica's link to its primary and keeps it from coming back.
// (Stopping its process would not do: what is in the socket is read later.)
func (l lossy) cutOff(ctx context.Context) error {
	_, err := l.replica.Do(ctx, "CONFIG", "SET", "masterauth", "wrong")
	_, killed := l.replica.Do(ctx, "CLIENT", "KILL", "TYPE", "master")
	return errors.Join(err, killed)
}

var lossyDeployments = map[string]func(*testing.T, testenv.Options) lossy{
	// An address that is moved to the replica by hand.
	"address": func(t *testing.T, o testenv.Options) lossy {
		o.Flags = []string{"--repl-diskless-sync-delay", "0"}
		primary := privateRedis(t, o)
		o.ReplicaOf = primary.Addr
		replica := privateRedis(t, o)
		if err := replica.AwaitReplica(testContext(t)); err != nil {
			t.Fatal(err)
		}
		var addr atomic.Pointer[string]
		addr.Store(&primary.Addr)
		rdb := redis.NewClient(&redis.Options{
			Addr: "redis.example:6379", MaxRetries: -1,
			Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, *addr.Load())
			},
		})
		t.Cleanup(func() { rdb.Close() })
		return lossy{rdb, replica, func() error {
			err := errors.Join(primary.Kill(), replica.Promote(testContext(t)))
			addr.Store(&replica.Addr)
			return err
		}}
	},
	"sentinel": func(t *testing.T, o testenv.Options) lossy {
		s := privateSentinel(t, o)
		rdb := universal(t, &redis.UniversalOptions{Addrs: s.Addrs(), MasterName: testenv.SentinelMaster})
		return lossy{rdb, s.Replica, s.Primary.Kill}
	},
	"cluster": func(t *testing.T, o testenv.Options) lossy {
		c := privateCluster(t, true, o)
		rdb := universal(t, &redis.UniversalOptions{Addrs: c.Addrs(), IsClusterMode: true})
		return lossy{rdb, c.Replicas[0], c.Masters[0].Kill}
	},
}

// journal stands in for the binary log: batch n is always the same entries, of
// version n+1.
func journal(n int) []rowtide.Entry {
	const perBatch = 30
	batch := []rowtide.Entry{entry("hot", rowtide.Version(n+1))}
	for i := range perBatch {
		batch = append(batch, entry(n*perBatch+i, rowtide.Version(n+1)), legacy(n*perBatch+i, rowtide.Version(n+1)))
	}
	return batch
}

// upTo is what Redis must hold after n batches.
func upTo(n int) []rowtide.Entry {
	var all []rowtide.Entry
	for i := range n {
		all = append(all, journal(i)[1:]...)
	}
	return append(all, journal(n - 1)[0])
}

// follower writes the journal as the daemon does the log.
type follower struct {
	t     *testing.T
	rdb   redis.UniversalClient
	redis *publisher.Redis
	watch *publisher.Failover[int]
	next  int
}

func follow(t *testing.T, rdb redis.UniversalClient) *follower {
	f := &follower{
		t: t, rdb: rdb, redis: publisher.NewRedis(rdb, "p", quiet(), publisher.NopObserver{}, withPlain()),
		watch: publisher.NewFailover[int](rdb, quiet()),
	}
	if err := f.watch.Check(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return f
}

// write writes one batch and saves that, or returns how the watch forbids it.
func (f *follower) write() *publisher.RewoundError[int] {
	f.t.Helper()
	ctx := testContext(f.t)
	if err := f.redis.Overwrite(ctx, journal(f.next)); err != nil {
		f.t.Fatal(err)
	}
	for {
		err := f.watch.Check(ctx)
		var lost *publisher.RewoundError[int]
		switch {
		case err == nil:
			f.next++
			f.watch.Saved(f.next)
			return nil
		case errors.As(err, &lost):
			return lost
		case ctx.Err() != nil:
			f.t.Fatal(err)
		}
	}
}

// writeFor writes at least that long, a batch every few milliseconds.
func (f *follower) writeFor(d time.Duration) *publisher.RewoundError[int] {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		if lost := f.write(); lost != nil {
			return lost
		}
	}
	return nil
}

// missing counts the entries that Redis lacks.
func (f *follower) missing(want []rowtide.Entry) (n int) {
	f.t.Helper()
	for part := range slices.Chunk(want, 1000) {
		there, err := f.rdb.Pipelined(testContext(f.t), func(p redis.Pipeliner) error {
			for _, e := range part {
				p.Exists(f.t.Context(), e.Key.Redis("p"))
			}
			return nil
		})
		if err != nil {
			f.t.Fatal(err)
		}
		for _, cmd := range there {
			n += 1 - int(cmd.(*redis.IntCmd).Val())
		}
	}
	return n
}

// G2: a failover that loses acknowledged writes is noticed before the next save,
// and writing again from the point that is named makes everything right.
func TestR21_LostWritesAreFoundAndWrittenAgain(t *testing.T) {
	for _, p := range testenv.RedisPrograms(t) {
		for name, start := range lossyDeployments {
			t.Run(p.Name+"/"+name, func(t *testing.T) {
				t.Parallel() // mostly waits for elections
				checkLossyFailover(t, start(t, testenv.Options{Bin: p.Bin}))
			})
		}
	}
}

func checkLossyFailover(t *testing.T, d lossy) {
	t.Helper()
	f := follow(t, d.rdb)
	if lost := f.writeFor(2500 * time.Millisecond); lost != nil {
		t.Fatal(lost)
	}
	kept := f.next
	if err := d.cutOff(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if lost := f.writeFor(1500 * time.Millisecond); lost != nil {
		t.Fatal(lost)
	}
	if err := d.crash(); err != nil {
		t.Fatal(err)
	}
	lost := f.write() // waits until somebody has taken over
	if lost == nil {
		t.Fatal("a save was allowed after writes were lost")
	}
	if lost.Point == nil {
		t.Fatalf("%v without a point", lost)
	}
	if *lost.Point > kept || *lost.Point < 1 {
		t.Fatalf("%v, point %d: want one at or before %d, and not the beginning", lost, *lost.Point, kept)
	}
	if n := f.missing(upTo(f.next)); n == 0 {
		t.Error("nothing was lost: this test shows nothing")
	}
	if f.missing(upTo(*lost.Point)) != 0 {
		t.Error("something before the point was lost")
	}
	last := f.next + 10
	g := follow(t, d.rdb)
	for g.next = *lost.Point; g.next < last; {
		if lost := g.write(); lost != nil {
			t.Fatal(lost)
		}
	}
	checkHeld(t, d.rdb, "p", upTo(last))
}

// A replica that comes or goes, a backlog that is made, and time that passes are
// no failover.
func TestFailover_SteadyOperationIsNoFailover(t *testing.T) {
	primary := privateRedis(t, testenv.Options{Flags: []string{"--repl-diskless-sync-delay", "0"}})
	f := follow(t, dial(t, &redis.Options{Addr: primary.Addr}))
	write := func() {
		t.Helper()
		if lost := f.write(); lost != nil {
			t.Fatal(lost)
		}
	}
	write()
	replica := privateRedis(t, testenv.Options{ReplicaOf: primary.Addr})
	if err := replica.AwaitReplica(testContext(t)); err != nil {
		t.Fatal(err)
	}
	write()
	if err := replica.Kill(); err != nil {
		t.Fatal(err)
	}
	write()
	checkHeld(t, f.rdb, "p", upTo(f.next))
}

// The watch looks by itself and before each checkpoint: of two answers the older one,
// should it come last, is no step back.
func TestFailover_LooksAtOnceAreNoFailover(t *testing.T) {
	primary := privateRedis(t, testenv.Options{Flags: []string{"--repl-diskless-sync-delay", "0"}})
	replica := privateRedis(t, testenv.Options{ReplicaOf: primary.Addr}) // without one no offset grows
	if err := replica.AwaitReplica(testContext(t)); err != nil {
		t.Fatal(err)
	}
	rdb := dial(t, &redis.Options{Addr: primary.Addr})
	watch := publisher.NewFailover[int](rdb, quiet())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				err := errors.Join(rdb.Set(ctx, "k", n, 0).Err(), watch.Check(ctx))
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	g.Wait()
}

// A server that came back without what it had is noticed by Run, also when
// nobody writes.
func TestFailover_RunEndsWhenTheServerComesBackEmpty(t *testing.T) {
	s := privateRedis(t, testenv.Options{})
	f := follow(t, dial(t, &redis.Options{Addr: s.Addr}))
	if lost := f.write(); lost != nil {
		t.Fatal(lost)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.watch.Run(testContext(t)) }()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	err := signal(t, "the end of Run", ended)
	var lost *publisher.RewoundError[int]
	if !errors.As(err, &lost) || !errors.Is(err, publisher.ErrRewound) || lost.Point != nil {
		t.Errorf("ended with %v, want ErrRewound without a point", err)
	}
}

// An applier that was paused finds connections that time out; that is no reason
// to end.
func TestFailover_AwaitOutlastsARedisThatHangs(t *testing.T) {
	srv := privateRedis(t, testenv.Options{})
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr, MaxRetries: -1, ReadTimeout: 100 * time.Millisecond})
	t.Cleanup(func() { rdb.Close() })
	watch := publisher.NewFailover[int](rdb, quiet())
	if err := watch.Check(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := srv.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := watch.Check(testContext(t)); err == nil {
		t.Fatal("a redis that hangs answers")
	}
	resumed := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() { resumed <- srv.Resume() })
	if err := watch.Await(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := <-resumed; err != nil {
		t.Error(err)
	}
}
