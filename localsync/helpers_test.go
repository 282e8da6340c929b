package localsync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// sarama's metrics library starts one ticker per process and never ends it.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

// patience bounds every wait for a signal; a test that needs it has failed.
const patience = 10 * time.Second

func await(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
}

// clock is a clock that only the test moves.
type clock struct{ ns atomic.Int64 }

func (c *clock) Now() time.Time {
	return time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC).Add(time.Duration(c.ns.Load()))
}

// node is a cache with everything around it in the test's hands.
type node struct {
	t     testing.TB
	clock *clock
	mr    *miniredis.Miniredis
	rdb   *redis.Client
	bus   *fakeBus
	cache *localsync.Cache
	wm    rowtide.Version

	writing sync.Mutex // one overwrite at a time

	mu    sync.Mutex
	hook  func(cmd string, args []string) // before a command runs
	after func(cmd string, args []string) // after an MGET was read, before its reply
	sent  map[string]int
	deny  string // a command that the user has no right to
}

func newNode(t testing.TB, edit ...func(*localsync.Options)) *node {
	t.Helper()
	n := &node{t: t, clock: &clock{}, bus: newFakeBus(), sent: map[string]int{}}
	n.mr = miniredis.NewMiniRedis()
	if err := n.mr.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.mr.Close)
	n.mr.Server().SetPreHook(n.intercept)
	n.rdb = redis.NewClient(&redis.Options{Addr: n.mr.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = n.rdb.Close() })
	opt := localsync.Options{
		Redis: n.rdb, Bus: n.bus, Now: n.clock.Now, MaxBytes: 64 << 20,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		// Its commands would be among those that tests count.
		ReportEvery: -1, NoHints: true,
		// The fake clock stands still; a loaded test machine must not trip this.
		RedisTimeout: patience,
	}
	for _, e := range edit {
		e(&opt)
	}
	n.bus = opt.Bus.(*fakeBus)
	c, err := localsync.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	n.cache = c
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if opt.Away != localsync.AwayDegraded {
		await(t, "the bus to run", n.bus.running)
	}
	return n
}

var overwriteHash = redis.NewScript(overwrite.Script).Hash()

// intercept counts commands, runs hooks, and runs both scripts in Go: miniredis
// takes milliseconds for each run of Lua. The scripts themselves are tested
// against the real Redis (integration_test.go, lease_integration_test.go, and the
// publisher's tests).
func (n *node) intercept(p *server.Peer, cmd string, args ...string) bool {
	cmd = strings.ToUpper(cmd)
	n.mu.Lock()
	n.sent[cmd]++
	hook, after, deny := n.hook, n.after, n.deny
	n.mu.Unlock()
	if hook != nil {
		hook(cmd, args)
	}
	switch {
	case cmd == deny:
		p.WriteError("NOPERM this user has no permissions")
		return true
	case cmd == "EVALSHA" && args[0] == overwriteHash:
		code := n.overwrite(args[2], overwrite.Mode(args[3]), args[4], args[5])
		p.WriteLen(1)
		p.WriteInt(int(code))
		return true
	case cmd == "EVALSHA":
		if answer, err := n.lease(args); err != nil {
			p.WriteError(err.Error())
		} else {
			p.WriteBulk(answer)
		}
		return true
	case cmd == "MGET" && after != nil:
		values := make([]*string, len(args))
		for i, k := range args {
			if v, err := n.mr.Get(k); err == nil {
				values[i] = &v
			}
		}
		after(cmd, args)
		p.WriteLen(len(values))
		for _, v := range values {
			if v == nil {
				p.WriteNull()
			} else {
				p.WriteBulk(*v)
			}
		}
		return true
	}
	return false
}

func (n *node) overwrite(key string, mode overwrite.Mode, env, ttl string) overwrite.Result {
	n.writing.Lock()
	defer n.writing.Unlock()
	have, err := n.mr.Get(key)
	if errors.Is(err, miniredis.ErrKeyNotFound) && mode == overwrite.Replay {
		return overwrite.Missing
	}
	if old, ok := rowtide.EnvelopeVersion([]byte(have)); err == nil && ok {
		next, _ := rowtide.EnvelopeVersion([]byte(env))
		if old > next {
			return overwrite.Stale
		}
		if old == next && mode == overwrite.Fill {
			return overwrite.Tie
		}
	}
	if err := n.mr.Set(key, env); err != nil {
		return overwrite.WrongType
	}
	if ms, _ := strconv.Atoi(ttl); ms > 0 {
		n.mr.SetTTL(key, time.Duration(ms)*time.Millisecond)
	}
	return overwrite.Written
}

func (n *node) onCommand(fn func(cmd string, args []string)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = fn
}

func (n *node) afterRead(fn func(cmd string, args []string)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.after = fn
}

func (n *node) commands(cmd string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[cmd]
}

func eventKey(id int64) rowtide.Key {
	return rowtide.Key{Module: "event", Version: 1, ID: strconv.FormatInt(id, 10)}
}

func (n *node) envelope(id int64, v rowtide.Version, value string) []byte {
	e := rowtide.Entry{Key: eventKey(id), Version: v, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte(value)}
	if value == "" {
		e.Flags = rowtide.FlagEmpty | rowtide.FlagDeleted
	}
	return e.AppendEnvelope(nil)
}

// put is the daemon's Redis write of a change; value "" is a delete.
func (n *node) put(id int64, v rowtide.Version, value string) {
	n.t.Helper()
	if r := n.overwrite(eventKey(id).Redis("rowtide"), overwrite.CDC, string(n.envelope(id, v, value)), "0"); r != overwrite.Written {
		n.t.Fatalf("overwrite event %d at %d: %v", id, v, r)
	}
}

// evict is Redis making room.
func (n *node) evict(id int64) { n.mr.Del(eventKey(id).Redis("rowtide")) }

func (n *node) inRedis(id int64) (rowtide.Entry, bool) {
	b, err := n.mr.Get(eventKey(id).Redis("rowtide"))
	if err != nil {
		return rowtide.Entry{}, false
	}
	e, err := rowtide.DecodeEnvelope(eventKey(id), []byte(b))
	return e, err == nil
}

func (n *node) part(id int64) int32 { return eventKey(id).Partition(n.bus.partitions) }

func (n *node) invalidate(id int64, v rowtide.Version) {
	n.bus.batch(n.part(id), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(id), Version: v})
}

// commit is a whole change: Redis, then the bus.
func (n *node) commit(id int64, v rowtide.Version, value string) {
	n.t.Helper()
	n.put(id, v, value)
	n.invalidate(id, v)
}

// beat is a heartbeat on every partition.
func (n *node) beat() {
	for p := range n.bus.partitions {
		n.bus.batch(p, n.clock.Now(), n.wm)
	}
}

// pass lets time go by with heartbeats in it.
func (n *node) pass(d time.Duration) {
	for d > 0 {
		s := min(d, time.Second)
		n.clock.ns.Add(int64(s))
		n.beat()
		d -= s
	}
}

// afterLag is when a loaded value may claim a version again.
const afterLag = localsync.DefaultReplicaLag + time.Second

// settle makes wm the aged watermark.
func (n *node) settle(wm rowtide.Version) {
	n.wm = wm
	n.beat()
	n.pass(afterLag)
}

// silence lets time go by without a word.
func (n *node) silence(d time.Duration) { n.clock.ns.Add(int64(d)) }

// text is a codec of plain strings that knows what is not its own.
type text struct{}

func (text) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }

func (text) Decode(b []byte) (string, error) {
	if strings.HasPrefix(string(b), "\x00") {
		return "", errors.New("not a text")
	}
	return string(b), nil
}

type events = localsync.Module[int64, string]

func (n *node) events(o *origin, edit ...func(*localsync.ModuleConfig[int64])) *events {
	n.t.Helper()
	cfg := localsync.ModuleConfig[int64]{Name: "event", LoadTimeout: patience}
	for _, e := range edit {
		e(&cfg)
	}
	m, err := localsync.NewModule(n.cache, cfg, localsync.Codec[string](text{}), o.load)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func want(t testing.TB, m *events, id int64, value string) localsync.Info {
	t.Helper()
	return wantIn(t.Context(), t, m, id, value)
}

// wantIn reads and checks; value "" is ErrNotFound.
func wantIn(ctx context.Context, t testing.TB, m *events, id int64, value string) localsync.Info {
	t.Helper()
	got, info, err := m.Lookup(ctx, id)
	if value == "" && errors.Is(err, localsync.ErrNotFound) {
		return info
	}
	if err != nil || got != value {
		t.Fatalf("event %d is %q, %v, %+v; want %q", id, got, err, info, value)
	}
	return info
}

func (n *node) wantPeek(id int64, v rowtide.Version, value string) {
	n.t.Helper()
	e, ok := n.cache.Peek(eventKey(id))
	if !ok || e.Version != v || string(e.Payload) != value {
		n.t.Fatalf("peek event %d: %v %d %q; want %d %q", id, ok, e.Version, e.Payload, v, value)
	}
}

func (n *node) wantNoPeek(id int64) {
	n.t.Helper()
	if e, ok := n.cache.Peek(eventKey(id)); ok {
		n.t.Fatalf("peek event %d: %d %q; want nothing", id, e.Version, e.Payload)
	}
}

func (n *node) module(name string) localsync.ModuleStats {
	n.t.Helper()
	for _, m := range n.cache.Stats().Modules {
		if m.Name == name {
			return m
		}
	}
	n.t.Fatalf("no module %q in the statistics", name)
	return localsync.ModuleStats{}
}

// eventually polls a condition that another goroutine brings about and that has
// no signal of its own.
// idle waits until nothing is being read: a read while a refresh is ending would
// start none.
func (n *node) idle(t testing.TB) {
	t.Helper()
	eventually(t, "nothing is being read", func() bool {
		for _, m := range n.cache.Stats().Modules {
			if m.Loading > 0 {
				return false
			}
		}
		return true
	})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}

// number is a value that tells its version, for histories.
func number(v uint64) string { return fmt.Sprintf("%020d", v) }

func versionOf(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// corrupt flips one bit of an envelope's payload.
func corrupt(b []byte) []byte {
	out := append([]byte(nil), b...)
	out[len(out)-1] ^= 1
	return out
}
