package aggregator_test

import (
	"testing"

	"github.com/rowtide/rowtide"
)

func read(t *rowtide.Table, module string, vals ...rowtide.Value) rowtide.Change {
	return rowtide.Change{Table: t, Op: rowtide.OpRead, After: vals, Module: module}
}

func TestBackfill_ARowThatWasReadIsWrittenLikeAnInsert(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		r.handle(
			tx(1, ins(eventTable, 1, "one", 1)),
			tx(2, upd(eventTable, row(1, "one", 1), row(1, "newer", 1))),
			tx(3, read(eventTable, "event", row(2, "two", 1)...), read(eventTable, "another", row(3, "not ours", 1)...)),
			tx(4, del(eventTable, 2, "two", 1)),
			tx(5, read(eventTable, "", row(4, "for all", 1)...)),
		)
		r.drain()
		if got := w.entry(t, eventKey(1)); got.Version != tx(2).Version {
			t.Errorf("key 1 is at %s, want %s", got.Version, tx(2).Version)
		}
		if got := w.entry(t, eventKey(2)); got.Flags&rowtide.FlagEmpty == 0 || got.Version != tx(4).Version {
			t.Errorf("key 2 holds %+v, want EMPTY: it was deleted after it was read", got)
		}
		if got, want := w.entry(t, eventKey(4)), `{"title":"for all","id":4}`; string(got.Payload) != want || got.Version != tx(5).Version {
			t.Errorf("key 4 holds %s at %s, want %s at %s", got.Payload, got.Version, want, tx(5).Version)
		}
		if _, there := w.redis[eventKey(3)]; there {
			t.Error("a row for another module was written")
		}
	})
}
