package stockapi

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

const (
	holdA = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	holdB = "bbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func one(seq int64, typ EventType, hold string, q, after int64) Event {
	e := Event{Seq: seq, Type: typ, Hold: hold, User: "u", Items: []EventItem{{SKU: "A", Qty: q, AvailAfter: after}}}
	if typ == EventLoad {
		e.Hold, e.User, e.Load = "", "", &EventLoadInfo{Cells: 1}
	}
	return e
}

func batchFrom(epoch int64, events ...Event) Batch {
	return Batch{Version: EventVersion, Event: "E", Epoch: epoch, Events: events}
}

func TestFold_SumsUpWhatIsNew(t *testing.T) {
	segs, next, seen, err := fold(position{1, 3}, []Batch{
		batchFrom(1, one(2, EventHold, holdA, 1, 9), one(3, EventHold, holdB, 2, 7), one(4, EventConfirm, holdB, 2, 7)),
		batchFrom(1, one(4, EventConfirm, holdB, 2, 7), one(5, EventCancel, holdA, 1, 8)),
	})
	if err != nil || len(segs) != 1 || len(seen) != 2 || next != (position{1, 5}) {
		t.Fatalf("segments=%d next=%v seen=%v err=%v", len(segs), next, seen, err)
	}
	c := segs[0].skus["A"]
	if c.avail != 1 || c.held != -3 || c.sold != 2 || c.after != 8 || c.seq != 5 {
		t.Errorf("change=%+v", c)
	}
	if len(segs[0].closed) != 2 || len(segs[0].opened) != 0 || len(segs[0].flows) != 2 {
		t.Errorf("closed=%d opened=%d flows=%d", len(segs[0].closed), len(segs[0].opened), len(segs[0].flows))
	}
}

func TestFold_Refuses(t *testing.T) {
	for _, tc := range []struct {
		name    string
		pos     position
		batches []Batch
		want    error
	}{
		{"gap at the start", position{1, 3}, []Batch{batchFrom(1, one(5, EventHold, holdA, 1, 9))}, ErrGap},
		{"gap between batches", position{1, 3}, []Batch{batchFrom(1, one(4, EventHold, holdA, 1, 9)), batchFrom(1, one(6, EventHold, holdB, 1, 8))}, ErrGap},
		{"new epoch without its load", position{1, 3}, []Batch{batchFrom(2, one(2, EventHold, holdA, 1, 9))}, ErrGap},
		{"first epoch without its load", position{}, []Batch{batchFrom(1, one(2, EventHold, holdA, 1, 9))}, ErrGap},
		{"counter that jumps", position{1, 3}, []Batch{batchFrom(1, one(4, EventHold, holdA, 1, 9), one(5, EventHold, holdB, 1, 9))}, ErrDivergence},
		{"hold twice", position{1, 3}, []Batch{batchFrom(1, one(4, EventHold, holdA, 1, 9), one(5, EventHold, holdA, 1, 8))}, ErrDivergence},
		{"number given twice", position{1, 3}, []Batch{batchFrom(1, one(4, EventHold, holdA, 1, 9)), batchFrom(1, one(4, EventHold, holdB, 1, 9))}, ErrDivergence},
		{"ends twice", position{1, 3}, []Batch{batchFrom(1, one(4, EventConfirm, holdA, 1, 9), one(5, EventCancel, holdA, 1, 10))}, ErrDivergence},
	} {
		if _, next, _, err := fold(tc.pos, tc.batches); !errors.Is(err, tc.want) || next != tc.pos && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestFold_OldEventsAreSetAside(t *testing.T) {
	segs, next, seen, err := fold(position{2, 1}, []Batch{batchFrom(1, one(7, EventHold, holdA, 1, 9)), batchFrom(2, one(1, EventLoad, "", 5, 5))})
	if err != nil || len(segs) != 0 || next != (position{2, 1}) || len(seen) != 2 || seen[0].epoch != 1 || seen[0].event.Seq != 7 {
		t.Fatalf("segments=%d next=%v seen=%v err=%v", len(segs), next, seen, err)
	}
}

// TestFold_AnyFramingIsTheSame cuts and repeats one log by chance: what is applied
// is always the log, once.
func TestFold_AnyFramingIsTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "events")
		log := []Event{one(1, EventLoad, "", 1000, 1000)}
		for i := 2; i <= n; i++ {
			id := []byte(holdA)
			id[0], id[1] = byte('a'+i%26), byte('a'+i/26)
			log = append(log, one(int64(i), EventHold, string(id), 1, 1001-int64(i)))
		}
		var batches []Batch
		for at := 0; at < n; {
			from := rapid.IntRange(0, at).Draw(rt, "from") // the relay may go back
			to := rapid.IntRange(at+1, n).Draw(rt, "to")
			batches, at = append(batches, batchFrom(1, log[from:to]...)), to
		}
		segs, next, _, err := fold(position{}, batches)
		if err != nil || next != (position{1, int64(n)}) || len(segs) != 1 || len(segs[0].flows) != n {
			rt.Fatalf("segments=%d next=%v err=%v", len(segs), next, err)
		}
		if got, want := segs[0].skus["A"].after, 1001-int64(n); n > 1 && got != want {
			rt.Fatalf("after=%d, want %d", got, want)
		}
	})
}

func TestCompileLimits(t *testing.T) {
	rules := []LimitRule{
		{ID: "ev", Match: LimitMatch{Event: "E*"}, Per: []string{"user", "event"}, Max: 5},
		{ID: "vip", Match: LimitMatch{SKU: "V-*"}, Per: []string{"user", "event"}, Max: 1},
		{ID: "sku", Match: LimitMatch{SKU: "A?"}, Per: []string{"user", "sku"}, Max: 2},
	}
	got := packLimits(compileLimits(rules, "E1", []Item{{"A1", 1}, {"A2", 2}, {"B", 3}}))
	if want := "ev,6,5;sku:A1,1,2;sku:A2,2,2"; got != want {
		t.Errorf("limits=%s, want %s", got, want)
	}
	if got := compileLimits(rules, "F", []Item{{"B", 3}}); len(got) != 0 {
		t.Errorf("limits of an event that none matches: %v", got)
	}
}
