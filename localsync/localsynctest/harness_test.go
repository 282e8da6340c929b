package localsynctest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/localsync/localsynctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type show struct {
	ID    int64  `json:"id"`
	Title string `json:"title"`
}

// table is the application's database.
type table struct {
	rows  map[int64]show
	err   error
	loads int
}

func (t *table) load(_ context.Context, ids []int64) (map[int64]show, error) {
	t.loads++
	out := map[int64]show{}
	for _, id := range ids {
		if s, ok := t.rows[id]; ok {
			out[id] = s
		}
	}
	return out, t.err
}

type shows = localsync.Module[int64, show]

func declare(t testing.TB, c *localsync.Cache, db *table) *shows {
	t.Helper()
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "show", MaxStale: time.Second}, localsync.JSON[show](), db.load)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func want(t testing.TB, m *shows, id int64, title string) localsync.Info {
	t.Helper()
	got, info, err := m.Lookup(t.Context(), id)
	if title == "" && errors.Is(err, localsync.ErrNotFound) {
		return info
	}
	if err != nil || got.Title != title {
		t.Fatalf("show %d is %q, %v; want %q", id, got.Title, err, title)
	}
	return info
}

func setUp(t testing.TB) (*localsynctest.Harness, *shows, *table) {
	t.Helper()
	h, db := localsynctest.New(t), &table{rows: map[int64]show{42: {42, "Hamlet"}}}
	return h, declare(t, h.Cache(), db), db
}

func TestHarness_CommitIsSeenByTheNextRead(t *testing.T) {
	h, m, db := setUp(t)
	if info := want(t, m, 42, "Hamlet"); info.Stale || info.Level != localsync.LevelLoader {
		t.Fatalf("first read: %+v, want a proven value of the loader", info)
	}
	h.Commit("show", 42, show{42, "Macbeth"})
	if info := want(t, m, 42, "Macbeth"); info.Stale || info.Level != localsync.LevelRedis {
		t.Fatalf("after the commit: %+v, want redis", info)
	}
	h.AssertConverged()
	h.Delete("show", 42)
	want(t, m, 42, "")
	v := h.Commit("show", 42, []byte(`{"title":"Lear"}`))
	if _, err := m.Get(localsync.AtLeast(t.Context(), v), 42); err != nil {
		t.Fatal(err)
	}
	want(t, m, 42, "Lear")
	h.AssertConverged()
	if db.loads != 1 {
		t.Errorf("%d loads, want 1: redis has the commits", db.loads)
	}
}

func TestHarness_DroppedMessageShowsWithTheNextHeartbeat(t *testing.T) {
	h, m, _ := setUp(t)
	want(t, m, 42, "Hamlet")
	h.DropMessages(1)
	h.Commit("show", 42, show{42, "Macbeth"})
	want(t, m, 42, "Hamlet")
	if wrong := h.Diverged(); len(wrong) != 1 || !strings.Contains(wrong[0], "Macbeth") {
		t.Fatalf("diverged: %q, want the one show", wrong)
	}
	h.Advance(time.Second)
	h.AssertConverged()
	want(t, m, 42, "Macbeth")
	h.AssertConverged()
}

func TestHarness_NodesAreServedApart(t *testing.T) {
	h, m, db := setUp(t)
	second := h.Node()
	other := declare(t, second.Cache, db)
	want(t, m, 42, "Hamlet")
	want(t, other, 42, "Hamlet")
	second.DropMessages(1)
	h.Commit("show", 42, show{42, "Macbeth"})
	want(t, m, 42, "Macbeth")
	want(t, other, 42, "Hamlet")
	if wrong := h.Diverged(); len(wrong) != 1 || !strings.HasPrefix(wrong[0], "node 1 ") {
		t.Fatalf("diverged: %q, want node 1 only", wrong)
	}
	h.Advance(time.Second)
	want(t, other, 42, "Macbeth")
	h.AssertConverged()
}

func TestHarness_SilenceIsSaidAndCaughtUpWith(t *testing.T) {
	h, m, _ := setUp(t)
	want(t, m, 42, "Hamlet")
	h.Silence(true)
	h.Commit("show", 42, show{42, "Macbeth"})
	h.Advance(2 * time.Second)
	want(t, m, 42, "Hamlet")
	h.Advance(2 * time.Second)
	if info := want(t, m, 42, "Macbeth"); !info.Degraded {
		t.Errorf("after 4 s of silence: %+v, want degraded", info)
	}
	h.Silence(false)
	if info := want(t, m, 42, "Macbeth"); info.Degraded {
		t.Errorf("heard again: %+v, want all well", info)
	}
	h.AssertConverged()
}

func TestHarness_CommitsWaitForRedis(t *testing.T) {
	h, m, _ := setUp(t)
	want(t, m, 42, "Hamlet")
	h.RedisAway(true)
	h.Commit("show", 42, show{42, "Macbeth"})
	want(t, m, 42, "Hamlet")
	h.RedisAway(false)
	h.Advance(time.Second) // a node keeps off a redis that failed a moment ago
	want(t, m, 42, "Macbeth")
	h.AssertConverged()
}

func TestHarness_ValuesEndWithTheClock(t *testing.T) {
	h, m, db := setUp(t)
	h.Commit("show", 42, show{42, "Macbeth"})
	want(t, m, 42, "Macbeth")
	h.Evict("show", 42)
	h.Advance(2 * time.Minute) // past the module's Refresh
	db.rows[42] = show{42, "Macbeth"}
	want(t, m, 42, "Macbeth")
	h.Idle()
	if db.loads != 1 {
		t.Errorf("%d loads, want 1 behind the reader", db.loads)
	}
	h.Advance(27 * time.Hour)
	if n := len(h.Redis().Keys(t.Context(), "rowtide:show:*").Val()); n != 0 {
		t.Errorf("redis holds %d keys past their ttl, want none", n)
	}
}

func TestHarness_TellsALoaderThatReadsOldRows(t *testing.T) {
	h, m, _ := setUp(t)
	h.Commit("show", 42, show{42, "Macbeth"})
	h.Evict("show", 42)
	h.Advance(5 * time.Second)
	want(t, m, 42, "Hamlet") // the fake database was not told
	if len(h.Diverged()) != 1 {
		t.Error("the loader's old row passes for the newest commit")
	}
}

func TestHarness_OwnCacheOverOptions(t *testing.T) {
	h := localsynctest.New(t)
	h.Version("show", 3)
	c, err := localsync.Open(t.Context(), h.Options())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	<-c.Ready()
	h.Observe(c)
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "show", Version: 3}, localsync.JSON[show](), (&table{}).load)
	if err != nil {
		t.Fatal(err)
	}
	h.Commit("show", 1, show{1, "Hamlet"})
	want(t, m, 1, "Hamlet")
	h.AssertConverged()
}

func TestHarness_WorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, m, _ := setUp(t)
		h.Commit("show", 42, show{42, "Macbeth"})
		want(t, m, 42, "Macbeth")
		synctest.Wait()
		h.AssertConverged()
	})
}

// failures records what a harness says, and ends nothing.
type failures struct {
	testing.TB
	said []string
}

func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func TestAssertConverged_FailsTheTest(t *testing.T) {
	f := &failures{TB: t}
	h := localsynctest.New(f)
	m := declare(t, h.Cache(), &table{rows: map[int64]show{42: {42, "Hamlet"}}})
	want(t, m, 42, "Hamlet")
	h.DropMessages(1)
	h.Commit("show", 42, show{42, "Macbeth"})
	h.AssertConverged()
	if len(f.said) != 1 || !strings.Contains(f.said[0], "node 0 serves show/1/42") {
		t.Errorf("said %q, want node, key and both values", f.said)
	}
}
