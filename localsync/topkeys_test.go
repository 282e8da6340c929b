package localsync_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

func TestTopKeys_FindsTheKeysReadMost(t *testing.T) {
	n := newNode(t)
	o := newOrigin()
	for id := range int64(2000) {
		o.set(id, "v")
	}
	m := n.events(o)
	r := rand.New(rand.NewPCG(4, 2))
	const reads = 60_000
	for range reads {
		id := 100 + r.Int64N(1900) // the long tail
		switch x := r.IntN(100); {
		case x < 20:
			id = 7
		case x < 30:
			id = 8
		}
		want(t, m, id, "v")
	}
	n.clock.ns.Add(int64(30 * time.Second))

	top := n.cache.TopKeys("event", 3)
	if len(top) != 3 || top[0].Key != "7" || top[1].Key != "8" {
		t.Fatalf("top keys %+v, want 7 and 8 first", top)
	}
	if got, sent := top[0].PerSecond, reads*0.2/30; got < 0.6*sent || got > 1.3*sent {
		t.Errorf("key 7 was read %.0f times a second, told as %.0f", sent, got)
	}
	if top[2].PerSecond > top[1].PerSecond/3 {
		t.Errorf("a key of the tail is told as hot: %+v", top)
	}
	if other := n.cache.TopKeys("session", 3); len(other) != 0 {
		t.Errorf("a module that is not declared has %v", other)
	}
}

func TestTopKeys_SeesEveryKeyOfARegularPattern(t *testing.T) {
	n := newNode(t)
	o := newOrigin()
	const keys = 64 // every 256th read is of the same one
	for id := range int64(keys) {
		o.set(id, "v")
	}
	m := n.events(o)
	for i := range int64(keys * 1000) {
		want(t, m, i%keys, "v")
	}
	if got := len(n.cache.TopKeys("event", 2*keys)); got < keys*9/10 {
		t.Errorf("%d of %d keys that are read in turn were seen", got, keys)
	}
}

func TestTopKeys_ForgetsThePast(t *testing.T) {
	n := newNode(t)
	o := newOrigin()
	m := n.events(o)
	read := func(id int64) {
		o.set(id, "v")
		for range 5000 {
			want(t, m, id, "v")
		}
	}
	told := func() string { return fmt.Sprint(keysOf(n.cache.TopKeys("event", 10))) }

	read(1)
	n.pass(61 * time.Second)
	read(2)
	if got := told(); got != "[2 1]" && got != "[1 2]" {
		t.Errorf("top keys %s, want those of the last two minutes", got)
	}
	n.pass(61 * time.Second)
	read(3)
	if got := told(); got != "[3 2]" && got != "[2 3]" {
		t.Errorf("top keys %s, want 1 forgotten", got)
	}
	n.pass(10 * time.Minute)
	if got := told(); got != "[]" {
		t.Errorf("top keys %s after ten minutes without a read", got)
	}
}

func keysOf(top []localsync.TopKey) []string {
	var out []string
	for _, k := range top {
		out = append(out, k.Key)
	}
	return out
}
