package localsynctest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

const (
	// partitions of the bus; any number would do.
	partitions = 4
	// patience bounds every wait for something real, which a test that passes never
	// needs.
	patience = 10 * time.Second
	// beat is how far apart the daemon's heartbeats are while Advance lets time go
	// by; a node calls the bus silent after three times that.
	beat = time.Second
	// ttl of what Commit writes. Advance beyond it to see values end.
	ttl = 24 * time.Hour
)

// Harness is everything around the nodes of one test. Its methods are safe for
// concurrent use; those that fail end the test, so they are for its goroutine.
type Harness struct {
	t   testing.TB
	mr  *miniredis.Miniredis
	rdb *redis.Client

	first func() *Node

	clock atomic.Int64 // nanoseconds since 1970; nodes ask for it while mu is held

	mu       sync.Mutex
	version  rowtide.Version // of the newest commit
	applied  rowtide.Version // of the newest that the daemon has taken on
	truth    map[rowtide.Key]rowtide.Entry
	modules  map[string]uint16 // versions, where not 1
	sequence [partitions]uint64
	buses    []*bus
	nodes    []*Node
	drop     int
	silent   bool
	away     bool
	delayed  []rowtide.Entry // commits while Redis is away
}

// New makes a harness that ends with t. Its clock stands at some day until Advance.
func New(t testing.TB) *Harness {
	t.Helper()
	h := &Harness{
		t: t, mr: miniredis.NewMiniRedis(),
		truth: map[rowtide.Key]rowtide.Entry{}, modules: map[string]uint16{}, version: firstVersion, applied: firstVersion,
	}
	h.clock.Store(time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC).UnixNano())
	h.mr.SetTime(h.Now())
	h.mr.ClockTTL(true)
	h.rdb = redis.NewClient(&redis.Options{
		Addr: "localsynctest", Protocol: 2, MaxRetries: -1,
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return h.mr.Dial() },
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	h.first = sync.OnceValue(h.Node)
	t.Cleanup(func() {
		if err := h.rdb.Close(); err != nil {
			t.Errorf("localsynctest: close redis client: %v", err)
		}
		h.mr.Close()
	})
	return h
}

// firstVersion leaves room below for what was there before the test.
const firstVersion rowtide.Version = 1<<52 | 1<<32 | 1000

// Options are for one cache that the application opens by itself; call it anew for
// each. The cache must be closed before the test ends. AssertConverged does not
// see into it, see Observe.
func (h *Harness) Options() localsync.Options {
	b := &bus{h: h, running: make(chan struct{})}
	return localsync.Options{
		Redis: h.rdb, Bus: b, Now: h.Now, MaxBytes: 16 << 20, Node: "test", ReportEvery: -1,
		Logger: slog.New(slog.DiscardHandler),
		// The clock of the test stands still, the machine's does not.
		RedisTimeout: patience,
	}
}

// Cache is the cache of the first node, which it opens at its first call.
func (h *Harness) Cache() *localsync.Cache { return h.first().Cache }

// Redis is the client that the nodes share, to look at what they hold there.
func (h *Harness) Redis() redis.UniversalClient { return h.rdb }

// Now is the test's clock.
func (h *Harness) Now() time.Time { return time.Unix(0, h.clock.Load()).UTC() }

// Version declares that a module's version in the daemon's configuration is not 1.
func (h *Harness) Version(module string, version uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.modules[module] = version
}

// Commit is the change of a row, all the way: the value is overwritten in Redis and
// every node hears of it. The id is spelt as the daemon's key template does, by
// fmt.Sprint. A []byte is taken as it is, anything else becomes JSON. It returns the
// commit's version, for localsync.AtLeast.
//
// It does not touch whatever the module's loader reads: change that first.
func (h *Harness) Commit(module string, id, row any) rowtide.Version {
	h.t.Helper()
	payload, ok := row.([]byte)
	if !ok {
		var err error
		if payload, err = json.Marshal(row); err != nil {
			h.t.Fatalf("localsynctest: commit %s %v: %v", module, id, err)
		}
	}
	return h.commit(module, id, rowtide.Entry{Payload: payload})
}

// Delete is the deletion of a row, all the way.
func (h *Harness) Delete(module string, id any) rowtide.Version {
	h.t.Helper()
	return h.commit(module, id, rowtide.Entry{Flags: rowtide.FlagEmpty | rowtide.FlagDeleted})
}

func (h *Harness) commit(module string, id any, e rowtide.Entry) rowtide.Version {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	e.Key, e.Version, e.BuiltAt, e.TTL = h.key(module, id), h.version, h.Now(), ttl
	h.truth[e.Key] = e
	if h.away {
		h.delayed = append(h.delayed, e)
	} else {
		h.apply(&e)
	}
	return e.Version
}

// apply is the daemon's work: Redis, then the bus; h.mu is held.
func (h *Harness) apply(e *rowtide.Entry) {
	h.t.Helper()
	if err := h.write(e); err != nil {
		h.t.Fatalf("localsynctest: commit %s: %v", e.Key, err)
	}
	h.applied = e.Version
	part := e.Key.Partition(partitions)
	h.sequence[part]++
	h.send(part, rowtide.Invalidation{Key: e.Key, Version: e.Version, Empty: e.Empty()})
}

func (h *Harness) key(module string, id any) rowtide.Key {
	version := h.modules[module]
	if version == 0 {
		version = 1
	}
	return rowtide.Key{Module: module, Version: version, ID: fmt.Sprint(id)}
}

var script = redis.NewScript(overwrite.Script)

func (h *Harness) write(e *rowtide.Entry) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return script.Run(ctx, h.rdb, []string{e.Key.Redis(localsync.DefaultPrefix)},
		string(overwrite.CDC), e.AppendEnvelope(nil), e.TTL.Milliseconds()).Err()
}

// Evict is Redis making room: the key is gone, without a word to anybody.
func (h *Harness) Evict(module string, id any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mr.Del(h.key(module, id).Redis(localsync.DefaultPrefix))
}

// RedisAway makes every command fail, or ends that. Like the daemon, commits wait for
// the end.
func (h *Harness) RedisAway(away bool) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = away
	if away {
		h.mr.SetError("ERR redis is away in this test")
		return
	}
	h.mr.SetError("")
	for i := range h.delayed {
		h.apply(&h.delayed[i])
	}
	h.delayed = nil
}

// Advance lets time go by, with the daemon's heartbeats unless Silence is on. What
// is old enough by then is refreshed at its next read.
func (h *Harness) Advance(d time.Duration) {
	for d > 0 {
		step := min(d, beat)
		d -= step
		h.mu.Lock()
		h.clock.Add(int64(step))
		h.mr.SetTime(h.Now())
		h.heartbeat()
		h.mu.Unlock()
	}
}

// Idle waits until no node reads or refreshes anything.
func (h *Harness) Idle() {
	h.t.Helper()
	h.mu.Lock()
	nodes := h.nodes
	h.mu.Unlock()
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	late := time.After(patience)
	for busy(nodes) {
		select {
		case <-tick.C:
		case <-late:
			h.t.Fatalf("localsynctest: nodes still load after %v", patience)
		}
	}
}

func busy(nodes []*Node) bool {
	for _, n := range nodes {
		for _, m := range n.Cache.Stats().Modules {
			if m.Loading > 0 {
				return true
			}
		}
	}
	return false
}

// AssertConverged fails the test unless every value that a node would serve as
// current is the newest commit of its key. What a read would check first, or mark
// as stale, is not counted against it.
func (h *Harness) AssertConverged() {
	h.t.Helper()
	if wrong := h.Diverged(); len(wrong) > 0 {
		h.t.Errorf("localsynctest: not converged:\n%s", strings.Join(wrong, "\n"))
	}
}
