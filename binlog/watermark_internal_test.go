package binlog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
)

var (
	beatShape  = &rowtide.Table{Schema: "rt", Name: "heartbeat", Columns: []string{"daemon", "token", "at"}}
	askShape   = &rowtide.Table{Schema: "rt", Name: "backfill", Columns: []string{"id", "daemon", "state"}}
	thingShape = &rowtide.Table{Schema: "s", Name: "thing", Columns: []string{"id", "v"}, PrimaryKey: []int{0}}
)

func txOf(version rowtide.Version, changes ...rowtide.Change) *rowtide.Tx {
	return &rowtide.Tx{Version: version, Changes: changes}
}

func beatOf(daemon, token string) rowtide.Change {
	return rowtide.Change{Table: beatShape, Op: rowtide.OpUpdate, Before: []rowtide.Value{daemon, "", ""}, After: []rowtide.Value{daemon, token, ""}}
}

func thing(id, v any) []rowtide.Value { return []rowtide.Value{id, v} }

func chunkOf(rows ...[]rowtide.Value) *chunk {
	// As a SELECT shapes it: other columns, the key elsewhere, other Go types.
	shape := &rowtide.Table{Schema: "s", Name: "thing", Columns: []string{"v", "id"}, PrimaryKey: []int{1}}
	c := &chunk{table: shape, bytes: 100, modules: []string{"m"}}
	for _, r := range rows {
		c.rows = append(c.rows, []rowtide.Value{r[1], r[0]})
	}
	return c
}

// handed is what the window let through, as text.
func handed(tx *rowtide.Tx) string {
	var out []string
	for _, c := range tx.Changes {
		out = append(out, fmt.Sprint(c.Op, c.Before, c.After))
	}
	return strings.Join(out, " ")
}

func TestWindow_DropsWhatChangedBetweenTheWatermarks(t *testing.T) {
	before := txOf(1, rowtide.Change{Table: thingShape, Op: rowtide.OpUpdate, Before: thing(int32(1), 0), After: thing(int32(1), 1)})
	for _, tt := range []struct {
		name    string
		between []rowtide.Change
		want    string
		void    bool
	}{
		{"nothing", nil, "read [] [10 1] read [] [20 2] read [] [30 3]", false},
		{"insert", []rowtide.Change{{Table: thingShape, Op: rowtide.OpInsert, After: thing(int32(2), 9)}}, "read [] [10 1] read [] [30 3]", false},
		{"update", []rowtide.Change{{Table: thingShape, Op: rowtide.OpUpdate, Before: thing(int32(2), 9), After: thing(int32(2), 9)}}, "read [] [10 1] read [] [30 3]", false},
		{"delete", []rowtide.Change{{Table: thingShape, Op: rowtide.OpDelete, Before: thing(int32(3), 9)}}, "read [] [10 1] read [] [20 2]", false},
		{"key moves", []rowtide.Change{{Table: thingShape, Op: rowtide.OpUpdate, Before: thing(int32(1), 9), After: thing(int32(3), 9)}}, "read [] [20 2]", false},
		{"all", []rowtide.Change{
			{Table: thingShape, Op: rowtide.OpDelete, Before: thing(int32(1), 9)},
			{Table: thingShape, Op: rowtide.OpDelete, Before: thing(int32(2), 9)},
			{Table: thingShape, Op: rowtide.OpDelete, Before: thing(int32(3), 9)},
		}, "", false},
		{"another row", []rowtide.Change{{Table: thingShape, Op: rowtide.OpDelete, Before: thing(int32(4), 9)}}, "read [] [10 1] read [] [20 2] read [] [30 3]", false},
		{
			"another table",
			[]rowtide.Change{{Table: &rowtide.Table{Schema: "s", Name: "other", Columns: []string{"id"}}, Op: rowtide.OpDelete, Before: thing(int32(1), 9)}},
			"read [] [10 1] read [] [20 2] read [] [30 3]", false,
		},
		{"a shape without the key", []rowtide.Change{{Table: &rowtide.Table{Schema: "s", Name: "thing", Columns: []string{"no"}}, Op: rowtide.OpDelete, Before: thing(int32(1), 9)}}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMarks("rt", "d")
			m.begin("s.thing", "low", []string{"id"})
			m.pass(before)
			m.pass(txOf(2, beatOf("d", "low"))).tell()
			m.pass(txOf(3, tt.between...)).tell()
			ch := m.load(chunkOf(thing(int64(1), 10), thing(int64(2), 20), thing(int64(3), 30)), "high")
			high := txOf(4, beatOf("d", "high"))
			told := m.pass(high)
			if got := handed(high); got != tt.want {
				t.Errorf("handed %q, want %q", got, tt.want)
			}
			select {
			case <-ch:
				t.Fatal("told before the handler had it")
			default:
			}
			told.tell()
			got := <-ch
			if got.version != 4 || got.void != tt.void || !tt.void && got.rows+got.dropped != 3 {
				t.Errorf("mark %+v", got)
			}
		})
	}
}

func TestWindow_KeysAreComparedExactly(t *testing.T) {
	m := newMarks("rt", "d")
	m.begin("s.thing", "low", []string{"id"})
	m.pass(txOf(1, beatOf("d", "low")))
	// To a collation all of these may be equal; the table has only one of them.
	m.pass(txOf(2, rowtide.Change{Table: thingShape, Op: rowtide.OpUpdate, Before: thing("ABC", 1), After: thing("abc ", 2)}))
	m.load(chunkOf(thing("abc", 1), thing("ABC", 2), thing("abc ", 3), thing("äbc", 4)), "high")
	high := txOf(3, beatOf("d", "high"))
	m.pass(high)
	if got, want := handed(high), "read [] [1 abc] read [] [4 äbc]"; got != want {
		t.Errorf("handed %q, want %q", got, want)
	}
}

func TestWindow_CompositeKeysDoNotRunTogether(t *testing.T) {
	shape := &rowtide.Table{Schema: "s", Name: "thing", Columns: []string{"a", "b"}, PrimaryKey: []int{0, 1}}
	m := newMarks("rt", "d")
	m.begin("s.thing", "low", []string{"a", "b"})
	m.pass(txOf(1, beatOf("d", "low")))
	m.pass(txOf(2, rowtide.Change{Table: shape, Op: rowtide.OpDelete, Before: thing("x,", "y")}))
	m.load(&chunk{table: shape, modules: []string{"m"}, rows: [][]rowtide.Value{thing("x", ",y"), thing("x,", "y")}}, "high")
	high := txOf(3, beatOf("d", "high"))
	m.pass(high)
	if got, want := handed(high), "read [] [x ,y]"; got != want {
		t.Errorf("handed %q, want %q", got, want)
	}
}

func TestWindow_Void(t *testing.T) {
	flood := func(m *marks) {
		for i := range maxTouched + 1 {
			m.pass(txOf(2, rowtide.Change{Table: thingShape, Op: rowtide.OpInsert, After: thing(int32(i), 1)}))
		}
	}
	for _, tt := range []struct {
		name   string
		happen func(m *marks)
	}{
		{"low never came", func(*marks) {}},
		{"the table was truncated", func(m *marks) {
			m.pass(txOf(1, beatOf("d", "low")))
			m.pass(txOf(2, rowtide.Change{Table: &rowtide.Table{Schema: "s", Name: "thing"}, Op: rowtide.OpTruncate}))
		}},
		{"too many changes", func(m *marks) { m.pass(txOf(1, beatOf("d", "low"))); flood(m) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMarks("rt", "d")
			m.begin("s.thing", "low", []string{"id"})
			tt.happen(m)
			ch := m.load(chunkOf(thing(int64(-1), 10)), "high")
			high := txOf(3, beatOf("d", "high"))
			m.pass(high).tell()
			if got := <-ch; !got.void || len(high.Changes) != 0 {
				t.Errorf("mark %+v with %d changes, want a void one without", got, len(high.Changes))
			}
		})
	}
}

func TestMarks_AbandonedOnAnotherServer(t *testing.T) {
	m := newMarks("rt", "d")
	beat := m.expect("beat")
	m.begin("s.thing", "low", []string{"id"})
	m.pass(txOf(1, beatOf("d", "low")))
	m.abandon()
	late := m.load(chunkOf(thing(int64(1), 10)), "high")
	for _, ch := range []<-chan mark{beat, late} {
		if got := <-ch; got.version != 0 {
			t.Errorf("mark %+v, want one without a version", got)
		}
	}
	high := txOf(2, beatOf("d", "high"))
	if m.pass(high).tell(); len(high.Changes) != 0 {
		t.Errorf("rows of an abandoned window were handed on: %q", handed(high))
	}
}

func TestMarks_OwnRowsStayInside(t *testing.T) {
	m := newMarks("rt", "d")
	tx := txOf(1, beatOf("someone", "low"), rowtide.Change{Table: thingShape, Op: rowtide.OpInsert, After: thing(1, 2)},
		rowtide.Change{Table: askShape, Op: rowtide.OpInsert, After: []rowtide.Value{1, "someone", "queued"}})
	m.pass(tx)
	if got, want := handed(tx), "insert [] [1 2]"; got != want {
		t.Errorf("handed %q, want %q", got, want)
	}
	select {
	case <-m.wake:
		t.Error("another daemon's request woke us")
	default:
	}
	m.pass(txOf(2, rowtide.Change{Table: askShape, Op: rowtide.OpInsert, After: []rowtide.Value{1, "d", "queued"}}))
	select {
	case <-m.wake:
	default:
		t.Error("a request did not wake us")
	}
	var none *marks
	if none.pass(tx) != nil {
		t.Error("no marks, yet something was reached")
	}
	none.abandon()
}
