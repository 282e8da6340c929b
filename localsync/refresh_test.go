package localsync_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// A refresh reads behind the reader: Redis first, the loader if Redis holds the
// very value that is to be refreshed; a failure leaves the value as it is.
func TestRefresh(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "v90")
	want(t, m, 1, "v90")

	// Redis has something newer whose invalidation never came.
	n.put(1, 95, "v95")
	n.idle(t)
	n.pass(2 * time.Minute)
	want(t, m, 1, "v90")
	eventually(t, "the refresh took redis's", func() bool { e, ok := n.cache.Peek(eventKey(1)); return ok && e.Version == 95 })
	if o.loads() != 0 {
		t.Fatalf("%d loads, want none", o.loads())
	}

	// Redis has the same: ask the source, tell Redis.
	o.set(1, "v150")
	n.settle(150)
	n.idle(t)
	n.pass(2 * time.Minute)
	want(t, m, 1, "v95")
	eventually(t, "the refresh took the loader's", func() bool { e, ok := n.cache.Peek(eventKey(1)); return ok && e.Version == 150 })
	want(t, m, 1, "v150")
	if e, _ := n.inRedis(1); e.Version != 150 {
		t.Fatalf("redis is at %d, want 150", e.Version)
	}

	// The source fails: the value stays, and is not asked for at every read.
	o.fail(errors.New("database is away"))
	n.idle(t)
	n.pass(2 * time.Minute)
	before := o.loads()
	want(t, m, 1, "v150")
	eventually(t, "the failed refresh", func() bool { return n.module("event").LoadErrors == 1 })
	for range 5 {
		if info := want(t, m, 1, "v150"); info.Stale {
			t.Fatalf("%+v: an unrefreshed value is not known to be stale", info)
		}
	}
	if o.loads() != before+1 {
		t.Fatalf("%d loads, want 1", o.loads()-before)
	}
	n.wantPeek(1, 150, "v150")
}

// R12: a refresh that read before a change does not bring the old value back.
func TestR12_RefreshObeysTheFloor(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "old")
	want(t, m, 1, "old")
	n.idle(t)
	n.pass(2 * time.Minute)
	o.set(1, "old")
	reached, release := pause(o)
	want(t, m, 1, "old") // starts the refresh
	await(t, "the refresh's load", reached)
	n.commit(1, 200, "new")
	close(release)
	want(t, m, 1, "new")
	eventually(t, "the refresh ended", func() bool { return n.module("event").Loads == 1 })
	want(t, m, 1, "new")
	n.wantPeek(1, 200, "new")
}

// A refresh that finds the same bytes moves ages, not bytes.
func TestRefresh_SameValueIsNotWrittenAgain(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	value := strings.Repeat("x", 300<<10)
	o.set(1, value)
	want(t, m, 1, value)
	size := n.cache.Stats().Store.Bytes
	for i := range 20 {
		n.settle(rowtide.Version(200 + i))
		n.idle(t)
		n.pass(2 * time.Minute)
		want(t, m, 1, value)
		eventually(t, "the refresh", func() bool { e, ok := n.cache.Peek(eventKey(1)); return ok && e.Version >= rowtide.Version(200+i) })
	}
	if s := n.cache.Stats().Store; s.Bytes != size || s.Entries != 1 {
		t.Fatalf("store went from %d to %d bytes, %d entries", size, s.Bytes, s.Entries)
	}
}

func TestAtLeast_PassesOverOlderValues(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "old")
	want(t, m, 1, "old")
	o.set(1, "mine")
	ctx := localsync.AtLeast(t.Context(), 200)
	// The change is in neither Redis nor here yet: the loader's word, marked.
	if info := wantIn(ctx, t, m, 1, "mine"); info.Level != localsync.LevelLoader || !info.Stale {
		t.Fatalf("%+v, want the loader's, marked", info)
	}
	want(t, m, 1, "old") // others are not affected
	n.put(1, 200, "mine")
	if info := wantIn(ctx, t, m, 1, "mine"); info.Level != localsync.LevelRedis || info.Stale {
		t.Fatalf("%+v, want redis", info)
	}
	if info := wantIn(ctx, t, m, 1, "mine"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local", info)
	}
}

// A page that shows one's own write is read more than once; soon it costs nothing.
func TestAtLeast_IsMetOnceAllUpToThereWasHeard(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	v := version(t, 3, 7, 500)
	if _, err := n.cache.VersionAt("binlog.000007", 500); !errors.Is(err, localsync.ErrNothingHeard) {
		t.Fatalf("%v before anything was heard", err)
	}
	n.settle(version(t, 3, 7, 400))
	if got, err := n.cache.VersionAt("binlog.000007", 500); err != nil || got != v {
		t.Fatalf("version %s, %v; want %s", got, err, v)
	}
	if _, err := n.cache.VersionAt("binlog", 500); err == nil {
		t.Fatal("a file without a number has a version")
	}
	n.commit(1, version(t, 3, 7, 300), "mine")
	n.commit(2, version(t, 3, 7, 300), "another's")
	o.set(1, "mine")
	ctx := localsync.AtLeast(t.Context(), v) // somebody else has written since
	if info := wantIn(ctx, t, m, 1, "mine"); info.Level != localsync.LevelLoader {
		t.Fatalf("%+v, want the loader: more than this may have changed", info)
	}
	n.settle(v)
	loads := o.loads()
	for _, id := range []int64{1, 2} {
		value := map[int64]string{1: "mine", 2: "another's"}[id]
		for _, level := range []localsync.Level{localsync.LevelRedis, localsync.LevelLocal} {
			if info := wantIn(ctx, t, m, id, value); info.Level != level || info.Stale {
				t.Errorf("event %d: %+v, want %s and no doubt", id, info, level)
			}
		}
	}
	if got := o.loads(); got != loads {
		t.Errorf("%d loads more, want none", got-loads)
	}
}

func version(t *testing.T, epoch, file uint32, pos uint64) rowtide.Version {
	t.Helper()
	v, err := rowtide.NewVersion(epoch, file, pos)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAtLeast_LastValueThatIsOlderIsMarked(t *testing.T) {
	away := errors.New("database is away")
	for name, module := range map[string]func(*node) *events{
		"no loader":        (*node).loaderless,
		"the loader fails": func(n *node) *events { o := newOrigin(); o.fail(away); return n.events(o) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			m := module(n)
			n.settle(100)
			n.put(1, 90, "last")
			want(t, m, 1, "last")
			n.evict(1)
			if info := wantIn(localsync.AtLeast(t.Context(), 200), t, m, 1, "last"); !info.Stale || info.Version != 90 {
				t.Fatalf("%+v, want 90, marked", info)
			}
			if info := want(t, m, 1, "last"); info.Stale {
				t.Fatalf("%+v, want others not affected", info)
			}
		})
	}
}

// R8: Redis behind what the node knows.
func TestR8_RedisBehindIsReadOnceMoreThenPassedOver(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(300)
	n.put(1, 90, "old")
	n.invalidate(1, 200)
	o.set(1, "new")
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelLoader || info.Version != 300 || info.Stale {
		t.Fatalf("%+v, want the loader's at 300", info)
	}
	if got := n.commands("MGET"); got != 2 {
		t.Fatalf("%d reads of redis, want 2", got)
	}
	// With the loader away too, the old value is better than none.
	n.put(2, 90, "old")
	n.invalidate(2, 200)
	o.fail(errors.New("database is away"))
	if info := want(t, m, 2, "old"); !info.Stale {
		t.Fatalf("%+v, want it marked", info)
	}
}

func TestRedisAway_LoaderServesAndRedisIsLeftAloneForAMoment(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "a")
	o.set(2, "b")
	n.mr.SetError("LOADING")
	want(t, m, 1, "a")
	before := n.commands("MGET")
	want(t, m, 2, "b")
	if got := n.commands("MGET"); got != before {
		t.Fatalf("redis was asked %d times while it was cut off", got-before)
	}
	want(t, m, 1, "a")
	n.wantPeek(1, 100, "a")
}

// A load that overran its own deadline in Redis says nothing about Redis.
func TestRedisAway_DeadlineOfOneReadDoesNotCutOffTheOthers(t *testing.T) {
	n, o := newNode(t), newOrigin()
	hasty, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "hasty", LoadTimeout: 20 * time.Millisecond},
		localsync.Codec[string](text{}), o.load)
	if err != nil {
		t.Fatal(err)
	}
	m := n.events(o)
	n.settle(100)
	n.put(1, 90, "v")
	release := make(chan struct{})
	defer close(release)
	n.onCommand(func(cmd string, args []string) {
		if cmd == "MGET" && strings.Contains(args[0], "hasty") {
			<-release
		}
	})
	if _, err := hasty.Get(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want its deadline", err)
	}
	if info := want(t, m, 1, "v"); info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want redis", info)
	}
}
