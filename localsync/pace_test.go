package localsync_test

import (
	"testing"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

// replay lets time go by, a record on each partition every 100 ms; lag is how far
// behind it is after so long.
func (n *node) replay(d time.Duration, lag func(time.Duration) time.Duration) {
	for t := time.Duration(0); t < d; {
		t += 100 * time.Millisecond
		n.silence(100 * time.Millisecond)
		for p := range n.bus.partitions {
			n.bus.batch(p, n.clock.Now().Add(-lag(t)), n.wm)
		}
	}
}

// R7: a minute of records comes at ten times the pace. It takes longer than the bus
// may be silent, and is no wrong clock.
func TestR7_LongBacklogIsTrustedAtItsEndOnly(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.commit(1, 200, "old")
	n.settle(200)
	want(t, m, 1, "old")
	n.silence(time.Minute)
	behind := func(t time.Duration) time.Duration { return max(time.Minute-9*t, 0) }
	n.replay(4500*time.Millisecond, behind)
	n.put(1, 300, "new") // its invalidation is still to come
	if info := want(t, m, 1, "new"); !info.Degraded {
		t.Errorf("%+v, want degraded: twenty seconds of records are still to come", info)
	}
	n.replay(3*time.Second, func(t time.Duration) time.Duration { return behind(t + 4500*time.Millisecond) })
	if info := want(t, m, 1, "new"); info.Degraded {
		t.Errorf("%+v, want all well: the backlog is through", info)
	}
}

// R7: records that come at half the pace are later and later, and no record of now.
func TestR7_StreamThatFallsBehindIsMarked(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.commit(1, 200, "v")
	n.settle(200)
	behind := func(t time.Duration) time.Duration { return t / 2 }
	n.replay(12*time.Second, behind) // the limit, and as long again until silence is noticed
	for at := 12 * time.Second; at < 100*time.Second; at += time.Second {
		if info := want(t, m, 1, "v"); !info.Degraded {
			t.Fatalf("%+v after %v, want degraded: the records are %v late", info, at, behind(at))
		}
		n.replay(time.Second, func(t time.Duration) time.Duration { return behind(at + t) })
	}
}

// R7: a wrong clock is believed although no two records take equally long.
func TestR7_AnotherClockIsBelievedWithJitter(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.commit(1, 200, "v")
	n.settle(200)
	n.replay(2*localsync.DefaultSilence, func(t time.Duration) time.Duration {
		return time.Hour + t*7919%(50*time.Millisecond)
	})
	if info := want(t, m, 1, "v"); info.Degraded {
		t.Errorf("%+v, want all well: the clock is an hour late, not the bus", info)
	}
}

// R7: a record that comes late tells of what was when it was sent. If nothing follows,
// the silence began then.
func TestR7_SilenceBeginsWithWhatWasHeardLast(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.commit(1, 200, "v")
	n.settle(200)
	want(t, m, 1, "v")
	n.silence(2500 * time.Millisecond)
	for p := range n.bus.partitions {
		n.bus.batch(p, n.clock.Now().Add(-1300*time.Millisecond), n.wm)
	}
	if info := want(t, m, 1, "v"); info.Degraded {
		t.Errorf("%+v, want all well: what was said 1.3 s ago is heard", info)
	}
	n.silence(1600 * time.Millisecond)
	if info := want(t, m, 1, "v"); info.Degraded {
		t.Errorf("%+v, want all well after 2.9 s", info)
	}
	n.silence(200 * time.Millisecond)
	if info := want(t, m, 1, "v"); !info.Degraded {
		t.Errorf("%+v, want degraded: nothing is known of the last 3.1 s", info)
	}
}
