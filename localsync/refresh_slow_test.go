package localsync_test

import (
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// A load may take longer than the interval of refreshes: it lands all the same, is
// not begun anew meanwhile, and refreshing goes on after it.
func TestRefresh_LoadThatOutlastsTheIntervalLandsAndRefreshingGoesOn(t *testing.T) {
	const interval = 10 * time.Second
	window := localsync.Window{TTL: time.Hour, Refresh: interval}
	for _, c := range []struct {
		name    string
		first   string // "" is absent
		objects int
	}{{"a value", "v100", 0}, {"an object", "v100", 10}, {"known absent", "", 0}} {
		t.Run(c.name, func(t *testing.T) {
			n, o := newNode(t), newOrigin()
			m := n.events(o, func(cfg *localsync.ModuleConfig[int64]) {
				cfg.TTL, cfg.Refresh, cfg.Empty, cfg.Objects = window.TTL, window.Refresh, window, c.objects
			})
			n.settle(100)
			if c.first != "" {
				o.set(1, c.first)
			}
			want(t, m, 1, c.first)
			n.idle(t)
			n.settle(150)
			n.pass(2 * interval)
			o.set(1, "v150")
			reached, release := pause(o)
			end := sync.OnceFunc(func() { close(release) })
			defer end()
			want(t, m, 1, c.first) // starts the refresh
			await(t, "the refresh's load", reached)
			for range 30 { // half of them could have been refreshes
				n.pass(interval / 2)
				if info := want(t, m, 1, c.first); info.Stale || info.Degraded {
					t.Fatalf("%+v: an unrefreshed value is not known to be stale", info)
				}
			}
			if got, s := o.loads(), n.module("event"); got != 2 || s.Refreshes != 1 || s.Loading != 1 {
				t.Fatalf("%d loads, %+v; want the first and the one under way", got, s)
			}
			n.settle(200) // what it has read is of 150 nevertheless
			o.set(1, "v200")
			end()
			n.idle(t)
			n.wantPeek(1, 150, "v150")
			if e, _ := n.inRedis(1); e.Version != 150 || string(e.Payload) != "v150" {
				t.Fatalf("redis is at %d, %q; want 150", e.Version, e.Payload)
			}
			served := "v150"
			for v := rowtide.Version(200); v <= 400; v += 50 {
				n.settle(v)
				o.set(1, number(uint64(v)))
				n.pass(2 * interval)
				want(t, m, 1, served) // starts the next
				n.idle(t)
				served = number(uint64(v))
				n.wantPeek(1, v, served)
			}
			if got, s := o.loads(), n.module("event"); got != 2+5 || s.Refused != 0 || s.LoadErrors != 0 {
				t.Fatalf("%d loads, %+v; want one for each interval", got, s)
			}
		})
	}
}
