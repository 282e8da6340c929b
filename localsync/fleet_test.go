package localsync_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// fleet is nodes that share one Redis, each with a bus of its own.
type fleet []*member

type member struct {
	bus   *fakeBus
	cache *localsync.Cache
	shows *events
	// abandoned: the test itself closes it, with loads under way.
	abandoned bool
}

// newFleet opens nodes on a Redis, with one origin behind all.
func newFleet(t testing.TB, size int, rdb redis.UniversalClient, c *clock, prefix string, o *origin, edit ...func(*localsync.ModuleConfig[int64])) fleet {
	t.Helper()
	f := make(fleet, size)
	for i := range f {
		f[i] = &member{bus: newFakeBus()}
		cache, err := localsync.Open(t.Context(), localsync.Options{
			Redis: rdb, Bus: f[i].bus, Prefix: prefix, Now: c.Now, MaxBytes: 1 << 20,
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), RedisTimeout: patience, NoHints: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		f[i].cache = cache
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := cache.Close(ctx); err != nil && !f[i].abandoned {
				t.Errorf("close: %v", err)
			}
		})
		await(t, "the bus to run", f[i].bus.running)
		cfg := localsync.ModuleConfig[int64]{Name: "event", LoadTimeout: 10 * patience}
		for _, e := range edit {
			e(&cfg)
		}
		if f[i].shows, err = localsync.NewModule(cache, cfg, localsync.Codec[string](text{}), o.load); err != nil {
			t.Fatal(err)
		}
	}
	f.settle(c, 100)
	return f
}

// lease is lease.lua.
func (n *node) lease(args []string) (string, error) {
	n.writing.Lock()
	defer n.writing.Unlock()
	keys, argv := args[2:], args[3:]
	lease, err := n.mr.Get(keys[0])
	if errors.Is(err, miniredis.ErrWrongType) {
		return "", err
	}
	if argv[0] == "free" {
		if len(lease) < 32 || lease[:32] != argv[1] {
			return "", nil
		}
		return lease[32:], n.setFor(keys[0], "", "1")
	}
	argv = argv[1:]
	data, _ := n.mr.Get(keys[1])
	switch {
	case data[:min(len(data), 40)] != argv[3]:
		return "moved", nil
	case lease == "":
		return "taken", n.setFor(keys[0], argv[1], argv[2])
	case lease[:32] == argv[1]:
		return "taken", nil
	case argv[4] != "" && !strings.Contains(lease[32:], argv[4]):
		return "held", n.mr.Set(keys[0], lease+argv[4])
	}
	return "held", nil
}

func (n *node) setFor(key, value, ms string) error {
	d, err := strconv.Atoi(ms)
	if err != nil {
		return err
	}
	if err := n.mr.Set(key, value); err != nil {
		return err
	}
	n.mr.SetTTL(key, time.Duration(d)*time.Millisecond)
	return nil
}

// fleet opens more nodes on n's Redis.
func (n *node) fleet(size int, o *origin, edit ...func(*localsync.ModuleConfig[int64])) fleet {
	n.t.Helper()
	return newFleet(n.t, size, n.rdb, n.clock, "rowtide", o, edit...)
}

func (f fleet) beat(c *clock, wm rowtide.Version) {
	for _, m := range f {
		for p := range m.bus.partitions {
			m.bus.batch(p, c.Now(), wm)
		}
	}
}

// settle makes wm the aged watermark of all nodes.
func (f fleet) settle(c *clock, wm rowtide.Version) {
	f.beat(c, wm)
	f.pass(c, wm, localsync.DefaultReplicaLag+time.Second)
}

func (f fleet) pass(c *clock, wm rowtide.Version, d time.Duration) {
	for ; d > 0; d -= time.Second {
		c.ns.Add(int64(min(d, time.Second)))
		f.beat(c, wm)
	}
}

// invalidate tells every node of a change.
func (f fleet) invalidate(c *clock, id int64, v, wm rowtide.Version) {
	for _, m := range f {
		m.invalidate(c, id, v, wm)
	}
}

func (m *member) invalidate(c *clock, id int64, v, wm rowtide.Version) {
	k := eventKey(id)
	m.bus.batch(k.Partition(m.bus.partitions), c.Now(), wm, rowtide.Invalidation{Key: k, Version: v})
}

func (m *member) stats() localsync.ModuleStats { return m.cache.Stats().Modules[0] }

// sum adds a counter up over all nodes.
func (f fleet) sum(counter func(localsync.ModuleStats) uint64) (n uint64) {
	for _, m := range f {
		n += counter(m.stats())
	}
	return n
}

func waits(s localsync.ModuleStats) uint64    { return s.LeaseWaits }
func timeouts(s localsync.ModuleStats) uint64 { return s.LeaseTimeouts }

// idle waits until no node is reading anything.
func (f fleet) idle(t testing.TB) {
	t.Helper()
	eventually(t, "nothing is being read", func() bool {
		return f.sum(func(s localsync.ModuleStats) uint64 { return uint64(s.Loading) }) == 0
	})
}
