package binlog

import (
	"math"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
)

func TestBehind_IsWhatMayBeMissing(t *testing.T) {
	var r reading
	now := time.Unix(1_800_000_000, 0)
	at := func(file string, pos uint64) rowtide.Position { return rowtide.Position{File: file, Pos: pos} }
	pass := func(d time.Duration) { now = now.Add(d) }
	opens := func(age time.Duration) { r.opens(now.Add(-age)) }
	take := func(age time.Duration, to rowtide.Position) {
		opens(age)
		r.hand(now)
		r.handed(now, to)
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
	r.connected(now, at("bin.1", 4), at("bin.2", 500))
	pass(time.Minute)
	check("the log is longer than what is read", math.MaxInt64)
	take(time.Minute, at("bin.1", 900))
	check("a minute's backlog", time.Minute)
	take(10*time.Second, at("bin.2", 100))
	pass(time.Second)
	check("ten seconds' backlog, and nothing came since", 11*time.Second)
	opens(10 * time.Second)
	pass(time.Second)
	check("a long transaction is coming", 11*time.Second)
	take(9*time.Second, at("bin.2", 499))
	check("one byte is left", 9*time.Second)
	take(8*time.Second, at("bin.2", 500))
	check("the end that the log had", 0)
	take(7*time.Second, at("bin.2", 700))
	check("past it", 0)

	r.disconnected(now)
	pass(7 * time.Second)
	check("no stream", 7*time.Second)
	r.connected(now, at("bin.2", 700), at("bin.3", 4))
	check("a stream, and seven seconds of log", 7*time.Second)
	take(5*time.Second, at("bin.2", 800))
	check("five seconds of it are left", 5*time.Second)
	r.disconnected(now)
	pass(time.Second)
	check("no stream again", 6*time.Second)
	r.connected(now, at("bin.2", 800), at("bin.3", 4))
	take(behindFrom-1, at("bin.2", 900))
	check("no more than clocks may be wrong", 0)
	r.disconnected(now)
	pass(time.Minute)
	r.connected(now, at("bin.2", 900), rowtide.Position{})
	check("nobody knows where the log ends", time.Minute)
	r.idle()
	check("the server has nothing more", 0)
	r.disconnected(now)
	pass(time.Minute)
	r.connected(now, at("bin.2", 900), at("bin.2", 900))
	check("nothing was written meanwhile", 0)

	pass(time.Hour)
	opens(0)
	r.hand(now)
	pass(1500 * time.Millisecond)
	check("the handler blocks", 1500*time.Millisecond)
	r.clock(time.Hour)
	pass(time.Second)
	check("and the server's clock is ahead", time.Hour+2500*time.Millisecond)
	r.handed(now, at("bin.2", 950))
	check("it goes on", 0)
}
