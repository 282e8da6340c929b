package localsync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// decoding is a codec of strings that counts what it decodes.
type decoding struct {
	text
	n *atomic.Int64
}

func (d decoding) Decode(b []byte) (string, error) {
	d.n.Add(1)
	return d.text.Decode(b)
}

// withObjects is the event module with decoded objects, and its decodings.
func (n *node) withObjects(o *origin, limit int) (*localsync.Module[int64, string], *atomic.Int64) {
	n.t.Helper()
	decoded := new(atomic.Int64)
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", Objects: limit},
		localsync.Codec[string](decoding{n: decoded}), o.load)
	if err != nil {
		n.t.Fatal(err)
	}
	return m, decoded
}

// wantObject reads until the value is decoded and kept, and then wants it so.
func wantObject(t testing.TB, m *localsync.Module[int64, string], id int64, value string) {
	t.Helper()
	want(t, m, id, value)
	want(t, m, id, value)
	if info := want(t, m, id, value); info.Level != localsync.LevelObject || info.Stale || info.Degraded {
		t.Fatalf("event %d: %+v, want an object", id, info)
	}
}

func TestObjects_AreDecodedOnceAndFollowTheRow(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m, decoded := n.withObjects(o, 10)
	n.settle(100)
	n.commit(1, 90, "v90")
	wantObject(t, m, 1, "v90")
	before := decoded.Load()
	for range 5 {
		want(t, m, 1, "v90")
	}
	if decoded.Load() != before {
		t.Fatalf("decoded %d times more", decoded.Load()-before)
	}

	// A change: from the instant that it is heard of, the object is no more.
	n.commit(1, 95, "v95")
	if info := want(t, m, 1, "v95"); info.Level != localsync.LevelRedis || info.Version != 95 {
		t.Fatalf("%+v, want redis", info)
	}
	wantObject(t, m, 1, "v95")

	// A newer version of the same bytes is the same object, of that version.
	n.commit(1, 97, "v95")
	want(t, m, 1, "v95")
	before = decoded.Load()
	if info := want(t, m, 1, "v95"); info.Level != localsync.LevelObject || info.Version != 97 {
		t.Fatalf("%+v, want the object at 97", info)
	}
	if decoded.Load() != before {
		t.Fatal("decoded the same bytes again")
	}

	// Deleted, and there again.
	n.commit(1, 98, "")
	want(t, m, 1, "")
	want(t, m, 1, "")
	n.commit(1, 99, "v95")
	wantObject(t, m, 1, "v95")
	s := n.module("event")
	if s.Object == 0 || s.Object+s.Local+s.Redis+s.Loader != 19 {
		t.Fatalf("%+v: 19 reads are not accounted for", s)
	}
}

// Two loads may claim one version and still differ: the version alone does not
// tell the object of the one from the bytes of the other.
func TestObjects_OfOneVersionAndOtherBytes(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m, _ := n.withObjects(o, 10)
	n.settle(100)
	o.set(1, "first")
	wantObject(t, m, 1, "first")
	o.set(1, "second")
	n.idle(t)
	n.evict(1)
	n.pass(2 * time.Minute)
	want(t, m, 1, "first") // past its soft age: renewed behind the reader
	eventually(t, "the refresh", func() bool { e, ok := n.cache.Peek(eventKey(1)); return ok && string(e.Payload) == "second" })
	if info := want(t, m, 1, "second"); info.Version != 100 {
		t.Fatalf("%+v, want version 100 once more", info)
	}
}

func TestObjects_ObeyEveryJudgementOfTheRow(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(n *node)
		want  localsync.Level
	}{
		{"invalidated", func(n *node) { n.put(1, 95, "new"); n.invalidate(1, 95) }, localsync.LevelRedis},
		{"suspect", func(n *node) {
			n.put(1, 95, "new")
			n.bus.lose(n.part(1))
			n.beat()
			n.pass(time.Millisecond)
		}, localsync.LevelRedis},
		{"silence", func(n *node) { n.put(1, 95, "new"); n.silence(10 * time.Second) }, localsync.LevelRedis},
		{"hard age", func(n *node) {
			n.put(1, 95, "new")
			n.pass(time.Minute)
			n.clock.ns.Add(int64(30 * time.Hour))
			n.beat()
		}, localsync.LevelRedis},
		{"generation", func(n *node) {
			n.pass(time.Second)
			n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
			n.pass(afterLag)
		}, localsync.LevelLoader},
		{"ages of the control topic", func(n *node) {
			n.put(1, 95, "new")
			n.pass(time.Minute)
			n.bus.control(control(func(c *rowtide.ModuleControl) { c.Settings.TTL, c.Settings.Refresh = 30*time.Second, 30*time.Second }))
		}, localsync.LevelRedis},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, o := newNode(t), newOrigin()
			m, _ := n.withObjects(o, 10)
			n.settle(100)
			n.commit(1, 90, "old")
			wantObject(t, m, 1, "old")
			o.set(1, "new")
			c.spoil(n)
			if info := want(t, m, 1, "new"); info.Level != c.want || info.Stale {
				t.Fatalf("%+v, want %v", info, c.want)
			}
		})
	}
}

func TestObjects_AtLeastPassesOverThem(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m, _ := n.withObjects(o, 10)
	n.settle(100)
	n.commit(1, 90, "old")
	wantObject(t, m, 1, "old")
	n.put(1, 200, "mine")
	if info := wantIn(localsync.AtLeast(t.Context(), 200), t, m, 1, "mine"); info.Level != localsync.LevelRedis {
		t.Fatalf("%+v", info)
	}
}

func TestObjects_GetManyTakesThem(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m, decoded := n.withObjects(o, 10)
	n.settle(100)
	ids := []int64{1, 2, 3}
	for _, id := range ids {
		n.commit(id, 90, fmt.Sprint(id))
	}
	for range 3 {
		if got, err := m.GetMany(t.Context(), ids); err != nil || len(got) != 3 || got[2] != "2" {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if s := n.module("event"); s.Object != 3 || decoded.Load() != 6 {
		t.Fatalf("%+v, %d decoded", s, decoded.Load())
	}
	n.commit(2, 95, "new")
	if got, err := m.GetMany(t.Context(), ids); err != nil || got[2] != "new" || got[1] != "1" {
		t.Fatalf("%v, %v", got, err)
	}
}

// What the store evicts is not served from its object: the row is gone.
func TestObjects_GoWithTheirRows(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.MaxBytes = 1 << 20 })
	o := newOrigin()
	m, _ := n.withObjects(o, 1000)
	n.settle(100)
	n.commit(1, 90, "old")
	wantObject(t, m, 1, "old")
	n.put(1, 95, "new")
	big := strings.Repeat("x", 64<<10)
	for id := int64(2); n.cache.Stats().Store.Evicted == 0; id++ {
		n.commit(id, 96, big)
		want(t, m, id, big)
	}
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want redis", info)
	}
}

func TestObjects_HitsAllocateNothing(t *testing.T) {
	n := newNode(t)
	n.settle(100)
	wantNoAllocs(t, n, "numbers", int64(42))
	wantNoAllocs(t, n, "texts", "forty-two")
}

func wantNoAllocs[K comparable](t *testing.T, n *node, name string, k K) {
	t.Helper()
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[K]{Name: name, Objects: 10}, localsync.JSON[Show](),
		func(_ context.Context, ks []K) (map[K]Show, error) { return map[K]Show{ks[0]: {ID: 1}}, nil })
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		if _, err := m.Get(t.Context(), k); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		read()
	}
	if allocs := testing.AllocsPerRun(1000, read); allocs != 0 {
		t.Errorf("%s: %v allocations per hit", name, allocs)
	}
	if s := n.module(name); s.Object < 1000 {
		t.Errorf("%s: %+v", name, s)
	}
}

// ticket goes on sale at an instant: whether it is is not in its row.
type ticket struct {
	Title    string    `json:"title"`
	OnSaleAt time.Time `json:"on_sale_at"`
	OnSale   bool      `json:"-"`
}

func (k ticket) at(now time.Time) ticket {
	k.OnSale = !now.Before(k.OnSaleAt)
	return k
}

func TestTimed_IsEvaluatedAtEachReadOfEveryLevel(t *testing.T) {
	n := newNode(t)
	opens := n.clock.Now().Add(30 * time.Second)
	row, err := json.Marshal(ticket{Title: "Hamlet", OnSaleAt: opens})
	if err != nil {
		t.Fatal(err)
	}
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", Refresh: time.Hour, Objects: 10},
		localsync.Timed(localsync.JSON[ticket](), ticket.at),
		func(context.Context, []int64) (map[int64]ticket, error) { return nil, errors.New("not asked") })
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	n.commit(1, 90, string(row))
	check := func(onSale bool) {
		t.Helper()
		for range 3 {
			if v, err := m.Get(t.Context(), 1); err != nil || v.OnSale != onSale {
				t.Fatalf("%v: %+v, %v; want %v", n.clock.Now(), v, err, onSale)
			}
			many, err := m.GetMany(t.Context(), []int64{1})
			if err != nil || many[1].OnSale != onSale {
				t.Fatalf("%+v, %v; want %v", many, err, onSale)
			}
		}
	}
	check(false)
	n.pass(opens.Sub(n.clock.Now()) - time.Millisecond)
	check(false)
	n.clock.ns.Add(int64(time.Millisecond))
	check(true)
	if s := n.module("event"); s.Object == 0 || s.Local == 0 || s.Redis == 0 || s.Loads != 0 {
		t.Fatalf("%+v: not every level was asked", s)
	}
}
