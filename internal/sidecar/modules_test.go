package sidecar_test

import (
	"strings"
	"testing"

	"github.com/rowtide/rowtide/internal/sidecar"
)

func TestModules_FollowTheControlTopic(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.put("venue", 1, "1", "old")
	if got := c.do("GET", "venue:1"); !strings.HasPrefix(got, "-ERR no module") {
		t.Errorf("%q", got)
	}
	r.bus.tell("venue", 1, "json")
	if got := c.do("GET", "venue:1"); got != "$3\r\nold\r\n" {
		t.Errorf("%q", got)
	}
	r.put("venue", 2, "1", "new")
	r.put("venue", 1, "2", "not written again yet")
	r.bus.tell("venue", 2, "json") // a new key space
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

// The control topic has one record per module once Kafka has compacted it, often
// more before; what is not there any more can stand in the config.
func TestModules_StartedInTheMiddleOfABumpReadTheOldKeySpaceToo(t *testing.T) {
	old, present := sidecar.Module{Name: "event", Version: 1, Codec: "json"}, sidecar.Module{Name: "event", Version: 2, Codec: "json"}
	for name, r := range map[string]*rig{
		"the topic has both":     newRigOf(t, []sidecar.Module{old, present}, nil),
		"the config has the old": newRigOf(t, []sidecar.Module{present}, []sidecar.Module{old}),
	} {
		r.put("event", 1, "1", "old")
		r.put("event", 1, "2", "old")
		r.put("event", 2, "2", "new")
		c := r.dial()
		if got := c.do("MGET", "event:1", "event:2", "event:3"); got != "*3\r\n$3\r\nold\r\n$3\r\nnew\r\n$-1\r\n" {
			t.Errorf("%s: %q", name, got)
		}
		r.put("event", 2, "1", "new")
		if got := c.do("GET", "event:1"); got != "$3\r\nnew\r\n" {
			t.Errorf("%s, once it is filled: %q", name, got)
		}
	}
}
