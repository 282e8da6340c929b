package sidecar_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/sidecar"
)

func TestModules_FollowTheControlTopic(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.put("venue", 1, "1", "old")
	if got := c.do("GET", "venue:1"); !strings.HasPrefix(got, "-ERR no module") {
		t.Errorf("%q", got)
	}
	r.bus.tell(told("venue", 1, 0))
	if got := c.do("GET", "venue:1"); got != "$3\r\nold\r\n" {
		t.Errorf("%q", got)
	}
	r.put("venue", 2, "1", "new")
	r.put("venue", 1, "2", "not written again yet")
	r.bus.tell(told("venue", 2, 1)) // a new key space
	if got := c.do("GET", "venue:2"); got != "$21\r\nnot written again yet\r\n" {
		t.Errorf("while the new one fills: %q", got)
	}
	if w := ask(t, r.server.Handler(sidecar.Mounts{}), "GET", "/v1/venue/2", ""); w.Header().Get("Rowtide-Stale") != "true" {
		t.Errorf("%v, want it marked: the row may have gone since", w.Header())
	}
	if got := c.do("GET", "venue:1"); got != "$3\r\nnew\r\n" {
		t.Errorf("%q", got)
	}
	if got := c.do("GET", "rowtide:venue:1:1"); got != "$3\r\nold\r\n" {
		t.Errorf("the full key of the old one: %q", got)
	}
}

// The control topic has one record per module once Kafka has compacted it. It is
// enough to know the old key space by, and that nothing is to be read there any more.
func TestModules_FormerKeySpaceStandsInUntilTheNewOneIsFilled(t *testing.T) {
	r := newRigOf(t, []rowtide.ModuleControl{told("event", 2, 1)}, nil)
	r.put("event", 1, "1", "old")
	r.put("event", 1, "2", "old")
	r.put("event", 1, "4", "deleted since")
	r.put("event", 2, "2", "new")
	c := r.dial()
	if got := c.do("MGET", "event:1", "event:2", "event:3"); got != "*3\r\n$3\r\nold\r\n$3\r\nnew\r\n$-1\r\n" {
		t.Errorf("while it is filled: %q", got)
	}
	r.put("event", 2, "1", "new")
	r.bus.tell(told("event", 2, 0))
	if got := c.do("MGET", "event:1", "event:4"); got != "*2\r\n$3\r\nnew\r\n$-1\r\n" {
		t.Errorf("once it is filled: %q", got)
	}
}

// Nobody loads here what a mass change has put in doubt: a row may have gone, and the
// daemon writes one that has not.
func TestModules_AnotherGenerationIsMarkedStale(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.put("event", 1, "1", "before")
	raised := told("event", 1, 0)
	raised.Generation = 1
	for _, when := range []string{"read before", "read after"} {
		if got := c.do("GET", "event:1"); got != "$6\r\nbefore\r\n" {
			t.Errorf("%s: %q", when, got)
		}
		r.bus.tell(raised)
		w := ask(t, r.server.Handler(sidecar.Mounts{}), "GET", "/v1/event/1", "")
		if w.Body.String() != "before" || w.Header().Get("Rowtide-Stale") != "true" {
			t.Errorf("%s: %s, %v, want it marked", when, w.Body, w.Header())
		}
	}
	e := rowtide.Entry{Key: rowtide.Key{Module: "event", Version: 1, ID: "1"}, Version: 8, Generation: 1, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte("after")}
	if err := r.mr.Set(e.Key.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	// Redis is looked at again after a second.
	for until := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		w := ask(t, r.server.Handler(sidecar.Mounts{}), "GET", "/v1/event/1", "")
		if w.Body.String() == "after" && w.Header().Get("Rowtide-Stale") == "" {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s, %v, want all well", w.Body, w.Header())
		}
	}
}
