package aggregator_test

import (
	"testing"
	"testing/synctest"

	"github.com/rowtide/rowtide"
)

// A source of several partitions, or one that repeats itself, hands transactions
// over out of order: within a flush the higher version wins, with the shape that
// its own row has.
func TestAggregator_HigherVersionWinsWithinAFlushWhateverTheOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, nil, 0, eventModule())
		r.handle(tx(1, ins(eventTable, 9, "first", 1)))
		synctest.Wait() // the first flush is under way; the rest gathers
		shorter := &rowtide.Table{Schema: eventTable.Schema, Name: eventTable.Name, Columns: []string{"title", "id"}}
		r.handle(
			tx(7, upd(eventTable, row(1, "new", 1), row(1, "newest", 1))),
			tx(5, rowtide.Change{Table: shorter, Op: rowtide.OpInsert, After: []rowtide.Value{"old", int64(1)}}),
			tx(6, del(eventTable, 1, "old", 1)),
			tx(8, ins(eventTable, 2, "old", 1)),
			tx(9, rowtide.Change{Table: shorter, Op: rowtide.OpInsert, After: []rowtide.Value{"new", int64(2)}}),
		)
		close(g.open)
		r.drain()
		got := w.entry(t, eventKey(1))
		if want := `{"title":"newest","id":1}`; string(got.Payload) != want || got.Version != tx(7).Version || got.Empty() {
			t.Errorf("entry %+v with %s, want %s at %s", got, got.Payload, want, tx(7).Version)
		}
		if got, want := string(w.entry(t, eventKey(2)).Payload), `{"title":"new","id":2}`; got != want {
			t.Errorf("entry of another shape holds %s, want %s", got, want)
		}
	})
}
