package binlog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
)

func keyOf(t *testing.T, types ...string) *fillTable {
	t.Helper()
	f := &fillTable{shape: &rowtide.Table{Schema: "s", Name: "t"}, index: "PRIMARY"}
	for i, typ := range types {
		k, err := newKeyColumn(string(rune('a'+i)), typ)
		if err != nil {
			t.Fatal(err)
		}
		f.key = append(f.key, k)
	}
	return f
}

func TestFillTable_BetweenIsTheLexicalOrderOfTheKey(t *testing.T) {
	f := keyOf(t, "int(11)", "varchar(20)", "decimal(20,4)")
	cond, args := f.between([]string{"1", "x", "2.5"}, []string{"9", "z", "0.1"})
	want := "(`a` >= CAST(CAST(? AS CHAR) AS SIGNED) AND ((`a` > CAST(CAST(? AS CHAR) AS SIGNED)) OR (`a` = CAST(CAST(? AS CHAR) AS SIGNED) AND `b` > ?) OR " +
		"(`a` = CAST(CAST(? AS CHAR) AS SIGNED) AND `b` = ? AND `c` > CAST(CAST(? AS CHAR) AS DECIMAL(20,4))))) AND " +
		"(`a` <= CAST(CAST(? AS CHAR) AS SIGNED) AND ((`a` < CAST(CAST(? AS CHAR) AS SIGNED)) OR (`a` = CAST(CAST(? AS CHAR) AS SIGNED) AND `b` < ?) OR " +
		"(`a` = CAST(CAST(? AS CHAR) AS SIGNED) AND `b` = ? AND `c` <= CAST(CAST(? AS CHAR) AS DECIMAL(20,4)))))"
	if cond != want {
		t.Errorf("condition\n got %s\nwant %s", cond, want)
	}
	if got, want := args, []any{"1", "1", "1", "x", "1", "x", "2.5", "9", "9", "9", "z", "9", "z", "0.1"}; !slices.Equal(got, want) {
		t.Errorf("args %v, want %v", got, want)
	}
	if strings.Count(cond, "?") != len(args) {
		t.Errorf("%d places for %d args", strings.Count(cond, "?"), len(args))
	}
}

func TestFillTable_CursorSurvivesAndIsCheckedAgainstTheKey(t *testing.T) {
	f := keyOf(t, "int", "varbinary(5)")
	c := cursor{Key: []string{"a", "b"}, After: []string{"1", "FF00"}, End: []string{"9", ""}}
	got, err := f.parseCursor(c.String())
	if err != nil || got.String() != c.String() {
		t.Fatalf("cursor %v, %v", got, err)
	}
	if none, err := f.parseCursor(""); none != nil || err != nil {
		t.Errorf("no cursor is %v, %v", none, err)
	}
	_, err = keyOf(t, "int").parseCursor(c.String())
	if err == nil || temporary(err) || !strings.Contains(err.Error(), "its key was (a, b) when the backfill began and is (a) now") {
		t.Errorf("err=%v", err)
	}
	if _, err = f.parseCursor("{"); err == nil || temporary(err) {
		t.Errorf("err=%v, want one that ends the request", err)
	}
	if _, err := newKeyColumn("u", "uuid"); err == nil {
		t.Error("a type that the log writes otherwise was taken")
	}
}

// A checkpoint of another server covers nothing of what was under way on the one
// before, whatever its numbers say.
func TestRun_AnotherServersCheckpointCoversNothing(t *testing.T) {
	p, err := NewProgress(nil, "", Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{b: &Backfiller{src: &Source{progress: p}, every: time.Hour}, f: &Backfill{Rows: 5}, at: &cursor{}, savedAt: time.Now()}
	v := func(epoch uint32, pos uint64) rowtide.Version {
		v, err := rowtide.NewVersion(epoch, 3, pos)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	r.waiting = []covered{{v(1, 100), "a", 10}, {v(1, 200), "b", 10}, {v(1, 300), "c", 10}}
	p.noteSaved(Checkpoint{Epoch: 1, File: "binlog.000003", Pos: 150})
	if err := r.settle(t.Context(), maxUncovered); err != nil || r.f.cursor != "a" || r.f.Rows != 15 || len(r.waiting) != 2 {
		t.Fatalf("%v; %+v, want the first chunk only", err, r.f)
	}
	p.noteSaved(Checkpoint{Epoch: 2, File: "binlog.000001", Pos: 4})
	if err := r.settle(t.Context(), maxUncovered); err == nil || !temporary(err) || r.f.cursor != "a" || r.f.Rows != 15 {
		t.Errorf("%v; %+v, want to begin again after the first chunk", err, r.f)
	}
}

func TestNextLimit_FollowsTheTargetTimeWithinBounds(t *testing.T) {
	for _, tt := range []struct {
		limit        int
		took, target time.Duration
		most, want   int
	}{
		{1000, time.Second, 500 * time.Millisecond, 10_000, 500},
		{1000, time.Hour, 500 * time.Millisecond, 10_000, 500},
		{1000, 400 * time.Millisecond, 500 * time.Millisecond, 10_000, 1250},
		{1000, 0, 500 * time.Millisecond, 10_000, 2000},
		{8000, 0, 500 * time.Millisecond, 10_000, 10_000},
		{8000, 0, 500 * time.Millisecond, 50, 50},
		{1, time.Hour, time.Millisecond, 50, 1},
	} {
		if got := nextLimit(tt.limit, tt.took, tt.target, tt.most); got != tt.want {
			t.Errorf("nextLimit(%d, %s, %s, %d)=%d, want %d", tt.limit, tt.took, tt.target, tt.most, got, tt.want)
		}
	}
}
