package binlog

import (
	"math"
	"testing"
	"time"
)

func TestBehind_IsWhatMayBeMissing(t *testing.T) {
	var r reading
	now := time.Unix(1_800_000_000, 0)
	pass := func(d time.Duration) { now = now.Add(d) }
	take := func(age time.Duration) {
		r.hand(now, now.Add(-age))
		r.handed(now)
	}
	check := func(when string, want time.Duration) {
		t.Helper()
		if got := r.behind(now); got != want {
			t.Errorf("%s: %s behind, want %s", when, got, want)
		}
	}
	check("before the first stream", math.MaxInt64)
	r.disconnected(now) // it could not be opened
	check("still", math.MaxInt64)
	r.connected(now)
	check("nobody knows whether there is a backlog", math.MaxInt64)
	take(time.Minute)
	check("a minute's backlog", time.Minute)
	take(10 * time.Second)
	pass(100 * time.Millisecond)
	check("ten seconds' backlog, and nothing came since", 10*time.Second+100*time.Millisecond)
	take(behindFrom - 1)
	check("no more than clocks may be wrong", 0)
	take(10 * time.Second)
	pass(quietAfter)
	check("nothing more has come", 0)

	pass(time.Hour)
	take(0)
	r.hand(now, now)
	pass(4 * time.Second)
	check("the handler blocks", 4*time.Second)
	r.handed(now)
	check("it goes on", 0)

	r.disconnected(now)
	pass(7 * time.Second)
	check("no stream", 7*time.Second)
	r.connected(now)
	check("a stream, and perhaps seven seconds of log", 7*time.Second)
	r.disconnected(now)
	pass(time.Second)
	check("no stream again before it said anything", 8*time.Second)
	r.connected(now)
	pass(quietAfter)
	check("the log's end", 0)
	r.hand(now, now.Add(-time.Minute))
	r.disconnected(now)
	pass(time.Second)
	check("cut off from a backlog", time.Minute+time.Second)
}
