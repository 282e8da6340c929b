package localsync_test

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

// hinted counts hints by version.
type hinted struct {
	localsync.NopObserver
	last atomic.Uint64
}

func (h *hinted) Hinted(inv rowtide.Invalidation) { h.last.Store(uint64(inv.Version)) }

func newHintedNode(t *testing.T) (*node, *hinted) {
	t.Helper()
	h := &hinted{}
	n := newNode(t, func(o *localsync.Options) { o.NoHints, o.Observer = false, h })
	n.listens()
	return n, h
}

func (n *node) listens() {
	n.t.Helper()
	channel := hints.Channel(n.rdb, "rowtide")
	eventually(n.t, "the node listens", func() bool { return n.mr.PubSubNumSub(channel)[channel] == 1 })
}

// hint tells that a key has a version, and waits until the node has taken it in.
func (n *node) hint(h *hinted, id int64, v rowtide.Version, value []byte) {
	n.t.Helper()
	b := rowtide.Batch{SentAt: n.clock.Now(), Items: []rowtide.Invalidation{{Key: eventKey(id), Version: v, Value: value}}}
	n.mr.Publish(hints.Channel(n.rdb, "rowtide"), string(b.AppendBatch(nil)))
	eventually(n.t, "the hint", func() bool { return h.last.Load() == uint64(v) })
}

func TestHints_ChangeIsServedBeforeTheBusTellsOfIt(t *testing.T) {
	n, h := newHintedNode(t)
	m := n.events(newOrigin())
	n.settle(100)
	n.put(1, 90, "old")
	want(t, m, 1, "old")
	e := rowtide.Entry{Key: eventKey(1), Version: 101, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte("new")}
	n.overwrite(e.Key.Redis("rowtide"), overwrite.CDC, string(e.AppendEnvelope(nil)), "0")
	want(t, m, 1, "old") // nobody told
	n.hint(h, 1, 101, nil)
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelRedis || info.Stale {
		t.Fatalf("%+v, want it from redis, and all well", info)
	}
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want it kept", info)
	}
	if got := n.cache.Stats().Bus; got.Hinted != 1 || got.Watermark != 100 {
		t.Fatalf("%+v, want one hint, and the bus's watermark", got)
	}
}

// Late, repeated, too early, with a value, or not readable: a hint costs at most a
// look at Redis, and puts nothing in the place of what is there.
func TestHints_ThatAreWrongCostALookAtMost(t *testing.T) {
	n, h := newHintedNode(t)
	o := newOrigin()
	m := n.events(o)
	o.set(1, "loaded")
	n.settle(100)
	n.commit(1, 105, "new")
	want(t, m, 1, "new")
	n.hint(h, 1, 103, []byte("older than the bus told"))
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local", info)
	}
	n.mr.Publish(hints.Channel(n.rdb, "rowtide"), "no batch")
	n.hint(h, 1, 105, []byte("the same version"))
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local", info)
	}
	// Redis lost it, or it never was there: the loader has the last word.
	n.hint(h, 1, 110, []byte("never written"))
	if info := want(t, m, 1, "loaded"); info.Level != localsync.LevelLoader {
		t.Fatalf("%+v, want the loader's", info)
	}
	if got := n.cache.Stats().Bus; got.Gaps != 0 || got.Undecodable != 0 {
		t.Fatalf("%+v: the bus is blamed", got)
	}
}

// Without the right to subscribe the bus alone tells.
func TestHints_NodeWithoutTheRightHearsTheBus(t *testing.T) {
	n := newNode(t)
	n.mu.Lock()
	n.deny = "SUBSCRIBE"
	n.mu.Unlock()
	said := make(chan string, 100)
	c, err := localsync.Open(t.Context(), localsync.Options{
		Redis: n.rdb, Bus: newFakeBus(), Logger: slog.New(slog.NewTextHandler(lines(said), nil)), ReportEvery: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range said {
		if strings.Contains(line, "does not let this user subscribe") {
			break
		}
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.commands("SUBSCRIBE"); got != 1 {
		t.Errorf("%d attempts within the first second, want 1", got)
	}
}

// lines is a log, a line at a time.
type lines chan<- string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}
