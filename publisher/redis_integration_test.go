//go:build integration

package publisher_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

func TestR5_NewestWinsInRedisInEveryOrder(t *testing.T) {
	rdb := dial(t, &redis.Options{Addr: testenv.Redis(t)})
	prefix := testenv.UniqueName(t, "p")
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		r := publisher.NewRedis(rdb, prefix, quiet(), publisher.NopObserver{})
		order := rapid.SliceOfN(rapid.Uint64Min(1), 1, 8).Draw(rt, "versions")
		for _, v := range order {
			if err := r.Overwrite(t.Context(), []rowtide.Entry{entry(n, rowtide.Version(v))}); err != nil {
				rt.Fatal(err)
			}
		}
		k := entry(n, 0).Key
		b, err := rdb.Get(t.Context(), k.Redis(prefix)).Bytes()
		if err != nil {
			rt.Fatal(err)
		}
		if got, ok := rowtide.EnvelopeVersion(b); !ok || got != rowtide.Version(slices.Max(order)) {
			rt.Fatalf("version %d after %v", got, order)
		}
	})
}

func TestRedis_EqualOverwritesOlderIsRefusedForeignIsReplaced(t *testing.T) {
	rdb, obs := dial(t, &redis.Options{Addr: testenv.Redis(t)}), newObserver()
	prefix := testenv.UniqueName(t, "p")
	r := publisher.NewRedis(rdb, prefix, quiet(), obs)
	ctx := testContext(t)
	put := func(e rowtide.Entry) {
		t.Helper()
		if err := r.Overwrite(ctx, []rowtide.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	put(entry(1, 5))
	same := entry(1, 5)
	same.Payload = []byte("the replay's bytes")
	put(same)
	b, err := rdb.Get(ctx, same.Key.Redis(prefix)).Bytes()
	if err != nil || !strings.HasSuffix(string(b), "the replay's bytes") {
		t.Errorf("equal version: %q, %v", b, err)
	}
	put(entry(1, 4))
	holds(t, rdb, prefix, same.Key, 5)
	foreign := entry(2, 1)
	if err := rdb.Set(ctx, foreign.Key.Redis(prefix), "someone else's", 0).Err(); err != nil {
		t.Fatal(err)
	}
	put(foreign)
	holds(t, rdb, prefix, foreign.Key, 1)
	if w, s := obs.count(overwrite.Written), obs.count(overwrite.Stale); w != 3 || s != 1 {
		t.Errorf("counted %d written %d stale, want 3 and 1", w, s)
	}
}

func TestRedis_ManyEntriesGoInOneCall(t *testing.T) {
	rdb, obs := dial(t, &redis.Options{Addr: testenv.Redis(t)}), newObserver()
	prefix := testenv.UniqueName(t, "p")
	r := publisher.NewRedis(rdb, prefix, quiet(), obs)
	for _, n := range []int{0, 1, 49, 50, 51, 101, 5003} {
		var all []rowtide.Entry
		for i := range n {
			all = append(all, entry(i, rowtide.Version(n)))
		}
		if err := r.Overwrite(testContext(t), all); err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, n / 2, n - 1} {
			if n > 0 {
				holds(t, rdb, prefix, all[i].Key, rowtide.Version(n))
			}
		}
	}
	if got, want := obs.count(overwrite.Written), 1+49+50+51+101+5003; got != want {
		t.Errorf("%d written, want %d", got, want)
	}
}

// A key of another type cannot be overwritten; the source is held back, loudly,
// until somebody moves the key away.
func TestRedis_WrongTypeIsToldAndWaitedFor(t *testing.T) {
	rdb, obs := dial(t, &redis.Options{Addr: testenv.Redis(t)}), newObserver()
	prefix := testenv.UniqueName(t, "p")
	r := publisher.NewRedis(rdb, prefix, quiet(), obs)
	e := entry(1, 5)
	name := e.Key.Redis(prefix)
	rdb.HSet(testContext(t), name, "f", "v")
	done := make(chan error, 1)
	go func() { done <- r.Overwrite(testContext(t), []rowtide.Entry{e, entry(2, 5)}) }()
	if err := signal(t, "the refusal", obs.redis); err == nil || !strings.Contains(err.Error(), "key "+name+" holds another type; rename or remove it") {
		t.Errorf("told %v, want the key and the remedy", err)
	}
	rdb.Rename(testContext(t), name, name+":aside")
	if err := signal(t, "the end of the wait", done); err != nil {
		t.Fatal(err)
	}
	if err := signal(t, "the all-clear", obs.redis); err != nil {
		t.Errorf("all-clear is %v", err)
	}
	holds(t, rdb, prefix, e.Key, 5)
}

func TestRedis_LoadsItsScriptAgain(t *testing.T) {
	s := privateRedis(t, testenv.Options{})
	rdb, obs := dial(t, &redis.Options{Addr: s.Addr}), newObserver()
	r := publisher.NewRedis(rdb, "p", quiet(), obs)
	for v := rowtide.Version(1); v <= 3; v++ {
		if err := rdb.ScriptFlush(testContext(t)).Err(); err != nil {
			t.Fatal(err)
		}
		if err := r.Overwrite(testContext(t), []rowtide.Entry{entry(1, v), entry(2, v)}); err != nil {
			t.Fatal(err)
		}
		holds(t, rdb, "p", entry(2, v).Key, v)
	}
	select {
	case err := <-obs.redis:
		t.Errorf("a missing script was told as an outage: %v", err)
	default:
	}
}

func TestRedis_WaitsThroughARestart(t *testing.T) {
	s := privateRedis(t, testenv.Options{AppendOnly: true})
	rdb, obs := dial(t, &redis.Options{Addr: s.Addr}), newObserver()
	r := publisher.NewRedis(rdb, "p", quiet(), obs)
	if err := r.Overwrite(testContext(t), []rowtide.Entry{entry(1, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	var all []rowtide.Entry
	for i := range 3000 { // several lanes and pipelines
		all = append(all, entry(i, 2))
	}
	done := make(chan error, 1)
	go func() { done <- r.Overwrite(testContext(t), all) }()
	if err := signal(t, "the outage", obs.redis); err == nil {
		t.Error("all-clear before the outage")
	}
	if err := s.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := signal(t, "the end of the wait", done); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		holds(t, rdb, "p", e.Key, 2)
	}
}

func TestRedis_ContextEndsTheWait(t *testing.T) {
	rdb, obs := dial(t, &redis.Options{Addr: "127.0.0.1:1"}), newObserver()
	r := publisher.NewRedis(rdb, "p", quiet(), obs)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Overwrite(ctx, []rowtide.Entry{entry(1, 1)}) }()
	if err := signal(t, "the outage", obs.redis); err == nil {
		t.Error("no outage told")
	}
	cancel()
	if err := signal(t, "the end", done); !errors.Is(err, context.Canceled) {
		t.Errorf("err=%v, want %v", err, context.Canceled)
	}
}
