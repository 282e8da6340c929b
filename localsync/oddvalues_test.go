package localsync_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

// oddity is a value that a cache may take for "there is none".
type oddity[V any] struct {
	codec   localsync.Codec[V]
	value   V
	payload string // its encoding
}

func (o oddity[V]) run(t *testing.T, objects int) {
	t.Run("loaded", func(t *testing.T) { o.testLoaded(t, objects) })
	t.Run("written by the daemon", func(t *testing.T) { o.testWritten(t, objects) })
	t.Run("pushed", func(t *testing.T) { o.testPushed(t, objects) })
	t.Run("refreshed", func(t *testing.T) { o.testRefreshed(t, objects) })
	t.Run("last value", func(t *testing.T) { o.testLastValue(t, objects) })
}

// TestOddValues_AreValuesAtEveryLevel: nothing but a key that a loader leaves out, or an
// entry that says so, is absence.
func TestOddValues_AreValuesAtEveryLevel(t *testing.T) {
	bytes, texts := localsync.Bytes(), localsync.Codec[string](text{})
	for name, run := range map[string]func(*testing.T, int){
		"no bytes":             oddity[[]byte]{bytes, []byte{}, ""}.run,
		"nil bytes":            oddity[[]byte]{bytes, nil, ""}.run,
		"empty text":           oddity[string]{texts, "", ""}.run,
		"asterisk":             oddity[string]{texts, "*", "*"}.run,
		"text null":            oddity[string]{texts, "null", "null"}.run,
		"JSON text null":       oddity[string]{localsync.JSON[string](), "null", `"null"`}.run,
		"JSON empty text":      oddity[string]{localsync.JSON[string](), "", `""`}.run,
		"JSON zero":            oddity[int]{localsync.JSON[int](), 0, "0"}.run,
		"JSON nil pointer":     oddity[*Show]{localsync.JSON[*Show](), nil, "null"}.run,
		"JSON nil slice":       oddity[[]Show]{localsync.JSON[[]Show](), nil, "null"}.run,
		"JSON nil map":         oddity[map[string]int]{localsync.JSON[map[string]int](), nil, "null"}.run,
		"JSON empty interface": oddity[any]{localsync.JSON[any](), nil, "null"}.run,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("as bytes", func(t *testing.T) { run(t, 0) })
			t.Run("as objects", func(t *testing.T) { run(t, 10) })
		})
	}
}

// The document null in place of one that cannot be nil is its zero value, a value too.
func TestOddValues_NullForAStructIsItsZeroValue(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule[int64, Show](n.cache, localsync.ModuleConfig[int64]{Name: "event"}, localsync.JSON[Show](), nil)
	if err != nil {
		t.Fatal(err)
	}
	n.commit(1, 90, "null")
	for range 2 { // from Redis, then from here
		if got, err := m.Get(t.Context(), 1); err != nil || got != (Show{}) {
			t.Fatalf("%+v, %v; want the zero value", got, err)
		}
	}
}

// oddSource is an oddity's loader, which gives it under odd ids, and leaves out even ones.
type oddSource[V any] struct {
	o     oddity[V]
	mu    sync.Mutex
	err   error
	loads int
}

func (r *oddSource[V]) load(_ context.Context, ids []int64) (map[int64]V, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loads++
	out := map[int64]V{}
	for _, id := range ids {
		if id%2 == 1 {
			out[id] = r.o.value
		}
	}
	return out, r.err
}

func (r *oddSource[V]) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.New("database is away")
}

// count is how often the loader was called.
func (r *oddSource[V]) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loads
}

// odd is a node's module of the oddity, and its loader.
func (o oddity[V]) odd(n *node, objects int) (*localsync.Module[int64, V], *oddSource[V]) {
	n.t.Helper()
	r := &oddSource[V]{o: o}
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", LoadTimeout: patience, Objects: objects}, o.codec, r.load)
	if err != nil {
		n.t.Fatal(err)
	}
	return m, r
}

// write is the daemon's, whose values node.put takes for deletes.
func (o oddity[V]) write(n *node, id int64, v rowtide.Version) {
	n.t.Helper()
	e := rowtide.Entry{Key: eventKey(id), Version: v, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte(o.payload)}
	if r := n.overwrite(e.Key.Redis("rowtide"), overwrite.CDC, string(e.AppendEnvelope(nil)), "0"); r != overwrite.Written {
		n.t.Fatalf("overwrite event %d: %v", id, r)
	}
}

// want reads id alone from a level.
func (o oddity[V]) want(t *testing.T, m *localsync.Module[int64, V], id int64, level localsync.Level, stale bool) {
	t.Helper()
	got, info, err := m.Lookup(t.Context(), id)
	if err != nil || o.encoded(t, got) != o.payload || info.Level != level || info.Stale != stale || info.Degraded {
		t.Fatalf("event %d is %#v, %v, %+v; want %#v from %v, stale %v", id, got, err, info, o.value, level, stale)
	}
}

// wantPage reads id together with the next one, which is absent.
func (o oddity[V]) wantPage(t *testing.T, m *localsync.Module[int64, V], id int64) {
	t.Helper()
	page, err := m.GetMany(t.Context(), []int64{id, id + 1})
	got, there := page[id]
	if err != nil || !there || len(page) != 1 || o.encoded(t, got) != o.payload {
		t.Fatalf("page %#v, %v; want event %d as %#v and nothing else", page, err, id, o.value)
	}
}

func (o oddity[V]) encoded(t *testing.T, v V) string {
	t.Helper()
	b, err := o.codec.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantKept wants 1, which was read alone, and 3, which was read in a page, from the
// node's own memory: from the bytes, then from the nearest level there is.
func (o oddity[V]) wantKept(t *testing.T, n *node, m *localsync.Module[int64, V], objects int) {
	t.Helper()
	nearest := localsync.LevelLocal
	if objects > 0 {
		nearest = localsync.LevelObject
	}
	o.wantPeek(n, 1, 100)
	o.wantPeek(n, 3, 100)
	o.want(t, m, 1, localsync.LevelLocal, false)
	o.wantPage(t, m, 3)
	for range 3 {
		for _, id := range []int64{1, 3} {
			o.want(t, m, id, nearest, false)
			o.wantPage(t, m, id)
		}
	}
}

func (o oddity[V]) wantPeek(n *node, id int64, v rowtide.Version) {
	n.t.Helper()
	n.wantPeek(id, v, o.payload)
	if e, _ := n.cache.Peek(eventKey(id)); e.Empty() {
		n.t.Fatalf("event %d is kept as EMPTY", id)
	}
}

// another is a second node on n's Redis, at the same time.
func (n *node) another(t *testing.T) *node {
	t.Helper()
	b := newNode(t, func(o *localsync.Options) { o.Redis, o.Now = n.rdb, n.clock.Now })
	b.clock = n.clock
	return b
}

func (o oddity[V]) testLoaded(t *testing.T, objects int) {
	n := newNode(t)
	m, r := o.odd(n, objects)
	n.settle(100)
	o.want(t, m, 1, localsync.LevelLoader, false)
	o.wantPage(t, m, 3)
	if e, ok := n.inRedis(1); !ok || e.Empty() || string(e.Payload) != o.payload || e.Version != 100 {
		t.Fatalf("redis has %+v, want %q", e, o.payload)
	}
	o.wantKept(t, n, m, objects)
	if got, s := r.count(), n.module("event"); got != 3 || s.Refused != 0 || s.Corrupt != 0 {
		t.Fatalf("%d loads, %+v; want one each of 1, of 3 with 4 and of 2", got, s)
	}

	b := n.another(t)
	other, r := o.odd(b, objects)
	o.want(t, other, 1, localsync.LevelRedis, false)
	o.wantPage(t, other, 3)
	o.wantKept(t, b, other, objects)
	if r.count() != 0 {
		t.Fatalf("%d loads on the node that can read redis", r.count())
	}
}

func (o oddity[V]) testWritten(t *testing.T, objects int) {
	n := newNode(t)
	m, r := o.odd(n, objects)
	n.settle(100)
	o.write(n, 1, 90)
	n.invalidate(1, 90)
	o.want(t, m, 1, localsync.LevelRedis, false)
	o.wantPeek(n, 1, 90)
	o.want(t, m, 1, localsync.LevelLocal, false)
	if r.count() != 0 {
		t.Fatalf("%d loads of what redis has", r.count())
	}

	// The page of a node tells it from absence, too.
	var d told
	call(t, n.cache.Handler(), http.MethodGet, "/inspect?module=event&key=1", &d)
	if d.Local.State != "value" || d.Redis.State != "value" || d.Local.Size != len(o.payload) {
		t.Fatalf("inspect tells %+v", d)
	}
	d.says(t, "equal")

	// To and fro with what really is absent.
	n.commit(1, 95, "")
	if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrNotFound) {
		t.Fatalf("after the delete: %v", err)
	}
	o.write(n, 1, 97)
	n.invalidate(1, 97)
	o.want(t, m, 1, localsync.LevelRedis, false)
	o.wantPeek(n, 1, 97)
}

func (o oddity[V]) testPushed(t *testing.T, objects int) {
	n := newNode(t)
	m, r := o.odd(n, objects)
	n.settle(100)
	n.commit(1, 90, "") // only what is resident is pushed
	if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrNotFound) {
		t.Fatalf("after the delete: %v", err)
	}
	before := n.commands("MGET")
	n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 200, Value: []byte(o.payload)})
	o.wantPeek(n, 1, 200)
	o.want(t, m, 1, localsync.LevelLocal, false)
	if n.commands("MGET") != before || r.count() != 0 {
		t.Fatal("what was pushed was read from elsewhere")
	}
	n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 300, Empty: true})
	if _, info, err := m.Lookup(t.Context(), 1); !errors.Is(err, localsync.ErrNotFound) || info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, %v; want it absent, from here", info, err)
	}
}

func (o oddity[V]) testRefreshed(t *testing.T, objects int) {
	n := newNode(t)
	m, r := o.odd(n, objects)
	n.settle(100)
	o.want(t, m, 1, localsync.LevelLoader, false)
	n.idle(t)
	n.settle(150)
	n.pass(2 * time.Minute)
	o.want(t, m, 1, localsync.LevelLocal, false) // starts it
	eventually(t, "the refresh", func() bool { e, ok := n.cache.Peek(eventKey(1)); return ok && e.Version == 150 })
	o.wantPeek(n, 1, 150)
	if r.count() != 2 {
		t.Fatalf("%d loads, want 2", r.count())
	}
}

// A last value is better than an error, whatever it is.
func (o oddity[V]) testLastValue(t *testing.T, objects int) {
	n := newNode(t)
	m, r := o.odd(n, objects)
	n.settle(100)
	o.write(n, 1, 90)
	o.want(t, m, 1, localsync.LevelRedis, false)
	r.fail()
	n.invalidate(1, 200)
	o.want(t, m, 1, localsync.LevelLocal, true)
	// Not here any more, but in Redis.
	o.write(n, 3, 90)
	n.invalidate(3, 200)
	o.want(t, m, 3, localsync.LevelRedis, true)
}
