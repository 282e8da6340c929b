package localsync_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

func TestOpen_NamesAllFaultsTogether(t *testing.T) {
	_, err := localsync.Open(t.Context(), localsync.Options{MaxBytes: 5, Silence: -time.Second})
	for _, part := range []string{"set Redis", "set Brokers", "raise MaxBytes", "raise Silence"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to name %q", err, part)
		}
	}
}

func TestNewModule_RefusesBadPolicies(t *testing.T) {
	n := newNode(t)
	type pair struct{ A, B int }
	load := func(context.Context, []int64) (map[int64]string, error) { return nil, nil }
	tests := []struct {
		name string
		cfg  localsync.ModuleConfig[int64]
		want string
	}{
		{"no name", localsync.ModuleConfig[int64]{}, "name"},
		{"colon", localsync.ModuleConfig[int64]{Name: "a:b"}, "name"},
		{"refresh above ttl", localsync.ModuleConfig[int64]{Name: "a", TTL: time.Second, Refresh: time.Minute}, "Refresh"},
		{"empty window", localsync.ModuleConfig[int64]{Name: "a", Empty: localsync.Window{TTL: 1, Refresh: 2}}, "Refresh"},
		{"on error", localsync.ModuleConfig[int64]{Name: "a", OnError: 9}, "OnError"},
		{"batch", localsync.ModuleConfig[int64]{Name: "a", Batch: -1}, "Batch"},
		{"timeout", localsync.ModuleConfig[int64]{Name: "a", LoadTimeout: -1}, "LoadTimeout"},
		{"objects", localsync.ModuleConfig[int64]{Name: "a", Objects: 1 << 40}, "Objects"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := localsync.NewModule(n.cache, tt.cfg, localsync.JSON[string](), load)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want it to name %q", err, tt.want)
			}
		})
	}
	_, err := localsync.NewModule[pair, string](n.cache, localsync.ModuleConfig[pair]{Name: "p"}, localsync.JSON[string](), nil)
	if err == nil || !strings.Contains(err.Error(), "set Key") {
		t.Fatalf("struct key: %v, want it to ask for Key", err)
	}
	_, err = localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "c"}, nil, load)
	if err == nil || !strings.Contains(err.Error(), "set a codec") {
		t.Fatalf("no codec: %v, want it to ask for one", err)
	}
	for i, want := range []string{"", "declared already"} {
		_, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "twice"}, localsync.JSON[string](), load)
		if i == 0 && err != nil || i == 1 && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Fatalf("declaration %d: %v", i, err)
		}
	}
}

func TestKey_SpellsIntegersStringsAndOwnForms(t *testing.T) {
	n := newNode(t)
	n.settle(1) // what is loaded before is not proven
	type eventID int32
	type slug string
	type seat struct {
		Row  string
		Seat uint8
	}
	spelt(t, n, int64(-5), "-5", nil)
	spelt(t, n, int(7), "7", nil)
	spelt(t, n, uint64(1<<63), "9223372036854775808", nil)
	spelt(t, n, uint8(200), "200", nil)
	spelt(t, n, eventID(42), "42", nil)
	spelt(t, n, "a b", "a b", nil)
	spelt(t, n, slug("x"), "x", nil)
	spelt(t, n, seat{"C", 9}, "C9", func(s seat) string { return s.Row + string('0'+rune(s.Seat)) })
}

func spelt[K comparable](t *testing.T, n *node, k K, id string, own func(K) string) {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "_") + id
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[K]{Name: strings.ReplaceAll(name, " ", ""), Key: own},
		localsync.JSON[int](), func(_ context.Context, ks []K) (map[K]int, error) { return map[K]int{k: 1}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Key(k); got.ID != id || got.Version != 1 {
		t.Fatalf("%v is %+v, want id %q", k, got, id)
	}
	if v, err := m.Get(t.Context(), k); v != 1 || err != nil {
		t.Fatalf("get %v: %d, %v", k, v, err)
	}
	if _, ok := n.cache.Peek(m.Key(k)); !ok {
		t.Fatalf("%v was not kept under the key that Peek looks for", k)
	}
}

func TestKey_TooLongIsAnError(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule[string, int](n.cache, localsync.ModuleConfig[string]{Name: "s"}, localsync.JSON[int](), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(t.Context(), strings.Repeat("x", 1<<16)); err == nil {
		t.Fatal("want an error")
	}
}

func TestJSON_RoundTripsAndBytesAreThemselves(t *testing.T) {
	type show struct {
		ID    int64  `json:"id"`
		Title string `json:"title"`
	}
	c := localsync.JSON[show]()
	b, err := c.Append([]byte("x"), show{1, "Hamlet"})
	if err != nil || string(b) != `x{"id":1,"title":"Hamlet"}` {
		t.Fatalf("%s, %v", b, err)
	}
	if v, err := c.Decode(b[1:]); err != nil || v != (show{1, "Hamlet"}) {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := c.Decode([]byte("{")); err == nil {
		t.Fatal("want an error")
	}
	if _, err := localsync.JSON[chan int]().Append(nil, nil); err == nil {
		t.Fatal("want an error")
	}
	if b, err := localsync.Bytes().Append(nil, []byte("p")); err != nil || string(b) != "p" {
		t.Fatalf("%s, %v", b, err)
	}
}

func TestPeek_DisturbsNothing(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.wantNoPeek(1)
	if _, ok := n.cache.Peek(rowtide.Key{Module: "nobody", Version: 1, ID: "1"}); ok {
		t.Fatal("peeked into a module that does not exist")
	}
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	before := n.module("event")
	n.pass(2 * time.Minute) // past Refresh
	n.wantPeek(1, 90, "v")
	if after := n.module("event"); after != before || n.commands("MGET") != 1 {
		t.Fatalf("peek counted or read: %+v", after)
	}
}
