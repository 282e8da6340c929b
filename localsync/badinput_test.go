package localsync_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// Whatever happens to an envelope in Redis, what is read is what was written or
// what the loader says.
func TestBadInput_NoDamageToAnEnvelopeGivesAnotherValue(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	id := int64(0)
	try := func(what string, damage func(envelope []byte) []byte) {
		id++
		o.set(id, "right")
		if err := n.mr.Set(eventKey(id).Redis("rowtide"), string(damage(n.envelope(id, 90, "right")))); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Get(t.Context(), id); err != nil || got != "right" {
			t.Fatalf("%s: %q, %v; want what was written or loaded", what, got, err)
		}
	}
	size := len(n.envelope(1, 90, "right"))
	for at := range size {
		for bit := range 8 {
			try("flipped bit", func(b []byte) []byte { b[at] ^= 1 << bit; return b })
		}
		try("cut short", func(b []byte) []byte { return b[:at] })
		try("torn", func(b []byte) []byte { return append(b[:at:at], make([]byte, size-at)...) })
	}
	try("bytes behind it", func(b []byte) []byte { return append(b, 0) })
	if s := n.module("event"); int(s.Corrupt) < int(id)*9/10 || s.Errors != 0 {
		t.Fatalf("%+v, want nearly all of %d counted", s, id)
	}
}

// Redis's word is final where there is no loader, but only if it can be read.
func TestBadInput_UnusableBytesWithoutALoaderAreAnErrorNotAbsence(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "event"}, text{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	newer := n.envelope(1, 90, "wrong")
	newer[1] |= 0x80
	for name, bytes := range map[string][]byte{"foreign": []byte("wrong"), "newer format": newer, "damaged": corrupt(n.envelope(1, 90, "wrong"))} {
		before := n.module("event").Corrupt
		if err := n.mr.Set(eventKey(1).Redis("rowtide"), string(bytes)); err != nil {
			t.Fatal(err)
		}
		_, err := m.Get(t.Context(), 1)
		if !errors.Is(err, localsync.ErrLoad) || errors.Is(err, localsync.ErrNotFound) || !strings.Contains(err.Error(), "damaged, foreign or of a newer format") {
			t.Fatalf("%s: %v, want ErrLoad that says why", name, err)
		}
		if s := n.module("event"); s.Corrupt != before+1 {
			t.Fatalf("%s: %+v, want it counted", name, s)
		}
	}
	n.put(1, 95, "right") // the daemon writes over it
	want(t, m, 1, "right")
}

func TestBadInput_GetManyReadsTheSoundKeysAroundAnUnusableOne(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	for id := range int64(5) {
		n.put(id, 90, "v")
	}
	if err := n.mr.Set(eventKey(3).Redis("rowtide"), "foreign"); err != nil {
		t.Fatal(err)
	}
	o.fail(errors.New("away"))
	got, err := m.GetMany(t.Context(), []int64{0, 1, 2, 3, 4})
	var partial *localsync.PartialError[int64]
	if !errors.As(err, &partial) || len(partial.Failed) != 1 || partial.Failed[3] == nil || len(got) != 4 {
		t.Fatalf("%v, %v; want all but event 3", got, err)
	}
}

// A value that was good is kept over what came after it and cannot be read.
func TestBadInput_UnusableBytesDoNotTakeTheLastGoodValuesPlace(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 110, "good")
	want(t, m, 1, "good")
	o.fail(errors.New("away"))
	if err := n.mr.Set(eventKey(1).Redis("rowtide"), "foreign"); err != nil {
		t.Fatal(err)
	}
	n.invalidate(1, 120)
	if info := want(t, m, 1, "good"); !info.Stale {
		t.Fatalf("%+v, want it marked stale", info)
	}
}

func TestBadInput_KeysThatWereNotAskedForAreCountedAndThrownAway(t *testing.T) {
	n := newNode(t)
	var asked [][]int64
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event"}, localsync.Codec[string](text{}),
		func(_ context.Context, ids []int64) (map[int64]string, error) {
			asked = append(asked, ids)
			if slices.Contains(ids, 2) {
				return map[int64]string{2: "two"}, nil
			}
			return map[int64]string{2: "unasked", 3: "unasked"}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	want(t, m, 1, "") // what was asked for is missing: absent
	if s := n.module("event"); s.Unasked != 2 || s.Errors != 0 {
		t.Fatalf("%+v, want two keys counted", s)
	}
	for _, id := range []int64{2, 3} {
		n.wantNoPeek(id)
		if e, ok := n.inRedis(id); ok {
			t.Fatalf("redis holds %+v under a key that nobody asked for", e)
		}
	}
	want(t, m, 2, "two")
	if len(asked) != 2 || n.module("event").Unasked != 2 {
		t.Fatalf("asked for %v, %+v", asked, n.module("event"))
	}
}

func TestBadInput_ValueThatGrowsPastTheLimitTakesTheSmallOneWithIt(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.MaxBytes = 1 << 20 })
	m := n.events(newOrigin(), func(c *localsync.ModuleConfig[int64]) { c.Objects = 10 })
	n.settle(100)
	n.commit(1, 110, "small")
	want(t, m, 1, "small")
	want(t, m, 1, "small") // as an object
	big := strings.Repeat("x", 600<<10)
	for v := rowtide.Version(120); v < 123; v++ {
		n.commit(1, v, big)
		want(t, m, 1, big)
		want(t, m, 1, big)
	}
	// Pushed with the invalidation, it is refused the same way.
	n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 130, Value: []byte(big)})
	n.put(1, 130, big)
	want(t, m, 1, big)
	n.wantNoPeek(1)
	if s := n.cache.Stats().Store; s.TooBig < 6 || s.Entries != 0 {
		t.Fatalf("%+v, want each read counted and nothing kept", s)
	}
	n.commit(1, 140, "small again")
	want(t, m, 1, "small again")
	n.wantPeek(1, 140, "small again")
}

// Foreign and hostile records of the bus: nothing is applied, all is counted.
func TestBadInput_RecordsCutAnywhereAreCountedAndPutTheirPartitionInDoubt(t *testing.T) {
	n := newNode(t)
	whole := (&rowtide.Batch{
		Producer: 7, Sequence: 1, SentAt: time.Unix(1, 0),
		Items: []rowtide.Invalidation{{Key: eventKey(1), Version: 900, Value: []byte("x")}},
	}).AppendBatch(nil)
	n.bus.deliver(func(s localsync.Sink) {
		for at := range whole {
			s.Record(n.part(1), whole[:at])
		}
	})
	if s := n.cache.Stats().Bus; int(s.Undecodable) != len(whole) || int(s.Gaps) != len(whole) || s.Applied != 0 {
		t.Fatalf("%+v, want %d counted and none applied", s, len(whole))
	}
	if f := n.cache.Floor(eventKey(1)); f != 0 {
		t.Fatalf("floor %d, want none", f)
	}
}
