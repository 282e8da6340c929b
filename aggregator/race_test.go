package aggregator_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowtide/rowtide"
)

// R22: Redis takes no writes for an hour. Nobody is told of what Redis does not
// have, nothing is acknowledged and the source waits; then all of it goes out in
// order.
func TestR22_NothingIsSaidOrSavedWhileRedisTakesNoWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, g := newWorld(), newGate("overwrite")
		w.before = g.before
		r := start(t, w, nil, 1, eventModule())
		r.handle(tx(1, ins(eventTable, 1, "a", 1)))
		pass(time.Hour)
		if names := w.names(); len(names) != 0 {
			t.Fatalf("%v while redis took nothing", names)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := r.agg.HandleTx(short, tx(2, ins(eventTable, 2, "a", 1))); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("HandleTx: %v, want the source held back", err)
		}
		close(g.open)
		synctest.Wait()
		r.handle(tx(2, ins(eventTable, 2, "a", 1)))
		r.drain()
		if names := w.names(); len(names) < 3 || names[0] != "overwrite" {
			t.Fatalf("%v, want redis first", names)
		}
		for _, k := range []rowtide.Key{eventKey(1), eventKey(2)} {
			w.entry(t, k)
		}
		checkSaves(t, w, 2)
	})
}

// R22: how long it has been so can be asked for, and is said with every record.
func TestR22_WhatIsHeldBackIsCounted(t *testing.T) {
	for _, what := range []string{"overwrite", "broadcast"} {
		t.Run(what, func(t *testing.T) { bubble(t, func(t *testing.T) { checkHeld(t, what) }) })
	}
}

func checkHeld(t *testing.T, what string) {
	t.Helper()
	w, g := newWorld(), newGate(what)
	w.before = g.before
	r := start(t, w, nil, 0, eventModule())
	check := func(when string, want time.Duration) {
		t.Helper()
		if got := r.agg.Held(); got != want {
			t.Errorf("%s: held for %s, want %s", when, got, want)
		}
	}
	pass(time.Hour)
	check("nothing to do", 0)
	r.handle(tx(1, ins(eventTable, 1, "a", 1)))
	synctest.Wait()
	pass(time.Minute)
	r.handle(tx(2, ins(eventTable, 2, "a", 1)))
	pass(time.Minute)
	check("nothing is taken", 2*time.Minute)
	close(g.open)
	synctest.Wait()
	check("all is taken", 0)
	r.drain()
}

// R21: what is read again after a failover has been superseded but for its end. Until
// there nothing of it is shown, for at most a second.
func TestR21_WhatIsReadAgainIsNotShownOneByOne(t *testing.T) {
	for _, whole := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			w := newWorld()
			r := newRig(t, w, nil, 0, eventModule())
			r.agg.Hold(tx(3).Version)
			r.run()
			r.handle(tx(1, ins(eventTable, 1, "a", 1)))
			pass(900 * time.Millisecond)
			r.handle(tx(2, upd(eventTable, row(1, "a", 1), row(1, "b", 1))))
			synctest.Wait()
			if names := w.names(); len(names) != 0 {
				t.Fatalf("%v before all is read again", names)
			}
			if whole {
				r.handle(tx(3, ins(eventTable, 2, "c", 1)))
			} else {
				pass(100 * time.Millisecond)
			}
			synctest.Wait()
			if e := w.entry(t, eventKey(1)); e.Version != tx(2).Version || len(w.of("overwrite")) != 1 {
				t.Errorf("version %s, %d overwrites; want the second state, and one", e.Version, len(w.of("overwrite")))
			}
			r.drain()
		})
	}
}
