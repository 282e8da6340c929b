//go:build integration

package publisher_test

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

const termKey = "p:term:{main}"

// elect sets the term of the newest election.
func elect(t *testing.T, rdb redis.UniversalClient, term uint64) {
	t.Helper()
	if err := rdb.Set(testContext(t), termKey, term, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// evict takes keys away as a full Redis does.
func evict(t *testing.T, rdb redis.UniversalClient, entries []rowtide.Entry) {
	t.Helper()
	for _, e := range entries {
		for _, key := range []string{e.Key.Redis("p"), overwrite.VersionKey(e.Key.Redis("p"))} {
			if err := rdb.Del(testContext(t), key).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// missing demands that Redis has none of the entries.
func missing(t *testing.T, rdb redis.UniversalClient, entries []rowtide.Entry) {
	t.Helper()
	for _, e := range entries {
		if got, err := rdb.Get(testContext(t), e.Key.Redis("p")).Bytes(); !errors.Is(err, redis.Nil) {
			t.Fatalf("%s holds %q, %v; want nothing", e.Key, got, err)
		}
	}
}

func TestRedis_FenceRefusesOlderTermsOnly(t *testing.T) {
	for name, start := range deployments {
		t.Run(name, func(t *testing.T) {
			rdb := start(t, testenv.Options{})
			var all []rowtide.Entry
			for i := range 3000 { // several lanes, pipelines and calls, both layouts
				all = append(all, entry(i, 5))
				if i%3 == 0 {
					all[i] = legacy(i, 5)
				}
			}
			write := func(opts ...publisher.RedisOption) (*observer, error) {
				obs := newObserver()
				r := publisher.NewRedis(rdb, "p", quiet(), obs, append(opts, withPlain())...)
				return obs, r.Overwrite(testContext(t), all)
			}
			written := func(what string, opts ...publisher.RedisOption) {
				t.Helper()
				evict(t, rdb, all[:10])
				if _, err := write(opts...); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				checkHeld(t, rdb, "p", all)
			}
			written("the first term, and none is stored", publisher.WithFence(termKey, 1))
			elect(t, rdb, 9)
			written("no fence", publisher.WithFence(termKey, 0))
			written("the stored term", publisher.WithFence(termKey, 9))
			written("a newer term", publisher.WithFence(termKey, 10))
			if name == "cluster" {
				written("an older term, and a cluster's keys have other slots", publisher.WithFence(termKey, 8))
				return
			}

			evict(t, rdb, all)
			obs, err := write(publisher.WithFence(termKey, 8))
			if !errors.Is(err, publisher.ErrFenced) {
				t.Fatalf("an older term: %v, want %v", err, publisher.ErrFenced)
			}
			missing(t, rdb, all)
			if n := obs.count(overwrite.Fenced); n == 0 || obs.count(overwrite.Written) > 0 {
				t.Errorf("counted %d fenced and %d written, want only fenced", n, obs.count(overwrite.Written))
			}
			select {
			case err := <-obs.redis:
				t.Errorf("told as an outage: %v", err)
			default:
			}
		})
	}
}

// A daemon is held up in a flush. Another is elected, writes a newer change of the
// key, and Redis evicts it: nothing there says that what the first one holds is old.
func TestR6_DeposedDaemonWritesNothingUnderAnEvictedKey(t *testing.T) {
	rdb := universal(t, &redis.UniversalOptions{Addrs: []string{privateRedis(t, testenv.Options{}).Addr}})
	ctx := testContext(t)
	for _, of := range []func(any, rowtide.Version) rowtide.Entry{entry, legacy} {
		flush, newer := []rowtide.Entry{of(1, 1), of("held up", 1)}, []rowtide.Entry{of(1, 2)}
		elect(t, rdb, 1)
		obs := newObserver()
		first := publisher.NewRedis(rdb, "p", quiet(), obs, withPlain(), publisher.WithFence(termKey, 1))
		second := publisher.NewRedis(rdb, "p", quiet(), publisher.NopObserver{}, withPlain(), publisher.WithFence(termKey, 2))

		stone := flush[1].Key.Redis("p")
		if err := rdb.HSet(ctx, stone, "f", "v").Err(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- first.Overwrite(ctx, flush) }()
		if err := signal(t, "the first one waits", obs.redis); err == nil {
			t.Fatal("all-clear before the outage")
		}

		elect(t, rdb, 2)
		if err := second.Overwrite(ctx, newer); err != nil {
			t.Fatal(err)
		}
		checkHeld(t, rdb, "p", newer)
		evict(t, rdb, flush) // and what held the first one up
		if err := signal(t, "the first one wakes", done); !errors.Is(err, publisher.ErrFenced) {
			t.Errorf("the first one ends with %v, want %v", err, publisher.ErrFenced)
		}
		missing(t, rdb, flush)
		if err := second.Overwrite(ctx, newer); err != nil {
			t.Fatal(err)
		}
		checkHeld(t, rdb, "p", newer)
	}
}
