//go:build integration

package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// Every kind of server in every deployment: both layouts, large and small
// flushes, EMPTY entries, replays and stale writes.
func TestRedis_OverwritesOnEveryServerAndDeployment(t *testing.T) {
	for _, p := range testenv.RedisPrograms(t) {
		for name, start := range deployments {
			t.Run(p.Name+"/"+name, func(t *testing.T) {
				rdb, obs := start(t, testenv.Options{Bin: p.Bin}), newObserver()
				r := publisher.NewRedis(rdb, "p", quiet(), obs, withPlain())
				ctx := testContext(t)
				put := func(entries ...rowtide.Entry) {
					t.Helper()
					if err := r.Overwrite(ctx, entries); err != nil {
						t.Fatal(err)
					}
				}
				var all []rowtide.Entry
				for i := range 1200 {
					// Some share a slot by their tag, as whole events may.
					all = append(all, entry(i, 5), legacy(i, 5), entry(fmt.Sprintf("{%d}%d", i%7, i), 5))
				}
				put(all...)
				checkHeld(t, rdb, "p", all)
				put(entry(1, 4), legacy(1, 4)) // late
				put(all[:10]...)               // again
				checkHeld(t, rdb, "p", all)
				if w, s := obs.count(overwrite.Written), obs.count(overwrite.Stale); w != len(all)+10 || s != 2 {
					t.Errorf("counted %d written and %d stale, want %d and 2", w, s, len(all)+10)
				}
				gone, plainGone := entry(2, 6), legacy(2, 6)
				gone.Flags, gone.Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, nil
				plainGone.Flags, plainGone.Payload = gone.Flags, nil
				put(gone, plainGone)
				checkHeld(t, rdb, "p", []rowtide.Entry{gone, plainGone})
				name := plainGone.Key.Redis("p")
				beside := rdb.Get(ctx, overwrite.VersionKey(name)).Val()
				if _, f, ok := overwrite.ParsePlainVersion(beside); !ok || f != gone.Flags {
					t.Errorf("an EMPTY entry in plain layout has flags %d beside it (%q), want %d", f, beside, gone.Flags)
				}
				for _, k := range []string{name, overwrite.VersionKey(name)} {
					if ttl := rdb.PTTL(ctx, k).Val(); ttl <= 0 || ttl > time.Hour {
						t.Errorf("%s has ttl %s, want its hour", k, ttl)
					}
				}
			})
		}
	}
}

func TestRedisCluster_SlotsAgreeWithTheServer(t *testing.T) {
	c := privateCluster(t, false, testenv.Options{})
	for _, key := range []string{"", "foo", "{foo}bar", "{}foo", "{foo", "a}b{c}d", "p:event:1:42", overwrite.VersionKey("p:legacy:1:42"), "å{ß}"} {
		got, err := c.Masters[0].Do(testContext(t), "CLUSTER", "KEYSLOT", key)
		if err != nil || got != strconv.Itoa(int(publisher.SlotOf(key))) {
			t.Errorf("slot of %q is %s, %v; want %d", key, got, err, publisher.SlotOf(key))
		}
	}
}

func TestRedisCluster_PlainLayoutRefusesBraces(t *testing.T) {
	c := privateCluster(t, false, testenv.Options{})
	rdb := universal(t, &redis.UniversalOptions{Addrs: c.Addrs(), IsClusterMode: true})
	r := publisher.NewRedis(rdb, "p", quiet(), publisher.NopObserver{}, withPlain())
	err := r.Overwrite(testContext(t), []rowtide.Entry{entry(1, 1), legacy("a{b}c", 1)})
	if !errors.Is(err, publisher.ErrBraces) || !strings.Contains(err.Error(), "p:legacy:1:a{b}c") {
		t.Errorf("err=%v, want ErrBraces with the key", err)
	}
	if n := rdb.Exists(testContext(t), entry(1, 1).Key.Redis("p")).Val(); n != 0 {
		t.Error("something was written before the refusal")
	}
}

// sameSlot finds ids whose keys share a slot of their own accord.
func sameSlot(n int, slot uint16) []rowtide.Entry {
	var out []rowtide.Entry
	for i := 0; len(out) < n; i++ {
		if e := legacy(i, 1); publisher.SlotOf(e.Key.Redis("p")) == slot {
			out = append(out, e)
		}
	}
	return out
}

// A slot moves from one primary to another, key by key, while all its keys are
// written round after round; values and versions of plain layout are on different
// sides for a while.
func TestRedisCluster_SlotMigrationLosesNoWrite(t *testing.T) {
	for _, p := range testenv.RedisPrograms(t) {
		t.Run(p.Name, func(t *testing.T) {
			c := privateCluster(t, false, testenv.Options{Bin: p.Bin})
			rdb := universal(t, &redis.UniversalOptions{Addrs: c.Addrs(), IsClusterMode: true})
			r := publisher.NewRedis(rdb, "p", quiet(), publisher.NopObserver{}, withPlain())
			const slot = 77 // of the first primary
			all := sameSlot(20, slot)
			tag := "" // a tag of the same slot
			for i := 0; tag == ""; i++ {
				if s := strconv.Itoa(i); publisher.SlotOf(s) == slot {
					tag = s
				}
			}
			for i := range 200 {
				all = append(all, entry(fmt.Sprintf("{%s}%d", tag, i), 1), entry(i, 1))
			}
			first, stop, done := make(chan error, 1), make(chan struct{}), make(chan error, 1)
			go func() { done <- writeRounds(testContext(t), r, all, first, stop) }()
			if err := signal(t, "the first round", first); err != nil {
				t.Fatal(err)
			}
			m := beginMove(t, c, slot)
			m.keys(1000)
			m.end()
			close(stop)
			if err := signal(t, "the end of the rounds", done); err != nil {
				t.Fatal(err)
			}
			checkHeld(t, rdb, "p", all)
			if n, err := c.Masters[1].Do(testContext(t), "CLUSTER", "COUNTKEYSINSLOT", strconv.Itoa(slot)); err != nil || n != "240" {
				t.Errorf("the new primary has %s keys of the slot, %v; want 240", n, err)
			}
		})
	}
}

// A move that stops half-way leaves keys of one slot on both sides; a call for
// several of them is refused there, but each alone is served.
func TestRedisCluster_HalfMovedSlotTakesWrites(t *testing.T) {
	c := privateCluster(t, false, testenv.Options{})
	rdb := universal(t, &redis.UniversalOptions{Addrs: c.Addrs(), IsClusterMode: true})
	r := publisher.NewRedis(rdb, "p", quiet(), publisher.NopObserver{})
	var all []rowtide.Entry
	for i := range 10 {
		all = append(all, entry(fmt.Sprintf("{06S}%d", i), 1)) // slot 0
	}
	if err := r.Overwrite(testContext(t), all); err != nil {
		t.Fatal(err)
	}
	m := beginMove(t, c, 0)
	m.keys(len(all) / 2)
	for i := range all {
		all[i].Version++
	}
	if err := r.Overwrite(testContext(t), all); err != nil {
		t.Fatal(err)
	}
	m.keys(len(all))
	m.end()
	checkHeld(t, rdb, "p", all)
}

// writeRounds writes all entries at version after version, at least once after
// stop is closed. first hears of the first round.
func writeRounds(ctx context.Context, r *publisher.Redis, all []rowtide.Entry, first chan<- error, stop <-chan struct{}) error {
	for v := rowtide.Version(2); ; v++ {
		last := false
		select {
		case <-stop:
			last = true
		default:
		}
		for i := range all {
			all[i].Version, all[i].Payload = v, fmt.Appendf(nil, `{"v":%d}`, v)
		}
		if err := r.Overwrite(ctx, all); err != nil || last {
			return err
		}
		if v == 2 {
			first <- nil
		}
	}
}

// move takes a slot from the first primary to the second.
type move struct {
	t        *testing.T
	c        *testenv.RedisCluster
	slot     int
	from, to *testenv.RedisServer
}

func beginMove(t *testing.T, c *testenv.RedisCluster, slot int) *move {
	t.Helper()
	m := &move{t, c, slot, c.Masters[0], c.Masters[1]}
	m.do(m.to, "CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", m.do(m.from, "CLUSTER", "MYID"))
	m.do(m.from, "CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", m.do(m.to, "CLUSTER", "MYID"))
	return m
}

// keys moves at most n keys, one at a time.
func (m *move) keys(n int) {
	m.t.Helper()
	source := dial(m.t, &redis.Options{Addr: m.from.Addr})
	for range n {
		keys, err := source.ClusterGetKeysInSlot(testContext(m.t), m.slot, 1).Result()
		if err != nil {
			m.t.Fatal(err)
		}
		if len(keys) == 0 {
			return
		}
		m.do(m.from, "MIGRATE", "127.0.0.1", strconv.Itoa(m.to.Port()), keys[0], "0", "5000")
	}
}

func (m *move) end() {
	m.t.Helper()
	id := m.do(m.to, "CLUSTER", "MYID")
	for _, s := range []*testenv.RedisServer{m.to, m.from, m.c.Masters[2]} {
		m.do(s, "CLUSTER", "SETSLOT", strconv.Itoa(m.slot), "NODE", id)
	}
}

func (m *move) do(s *testenv.RedisServer, words ...string) string {
	m.t.Helper()
	answer, err := s.Do(testContext(m.t), words...)
	if err != nil {
		m.t.Fatal(err)
	}
	return answer
}
