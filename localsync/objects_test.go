package localsync

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// held counts what is in the table.
func (t *objects[K, V]) held() (n int) {
	for i := range t.slots {
		if t.slots[i].Load() != nil {
			n++
		}
	}
	return n
}

func TestObjects_KeepsAsManyAsSaidAndNoMore(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 64, 150} {
		o := newObjects[int, int](limit)
		for k := range limit {
			o.put(k, -k, &sighting{})
		}
		for k := range limit {
			if got := o.get(k); got == nil || got.value != -k {
				t.Fatalf("limit %d: %d is %+v", limit, k, got)
			}
		}
		for k := range 10 * limit {
			o.put(limit+k, k, &sighting{})
			o.put(limit+k, k+1, &sighting{})
			if got := o.get(limit + k); got == nil || got.value != k+1 {
				t.Fatalf("limit %d: %d is %+v after it was put", limit, limit+k, got)
			}
			if o.held() != limit || o.len != limit {
				t.Fatalf("%d held, counted %d, limit %d", o.held(), o.len, limit)
			}
		}
	}
	if o := newObjects[int, int](0); o.get(1) != nil {
		t.Fatal("an object of no table")
	}
}

func TestObjects_WhatIsReadStays(t *testing.T) {
	const limit, hot = 100, 50
	o := newObjects[int, int](limit)
	for k := range hot {
		o.put(k, k, &sighting{})
	}
	for k := hot; k < 20*limit; k++ {
		o.put(k, k, &sighting{}) // once and never again
		for h := range hot {
			if o.get(h) == nil {
				t.Fatalf("%d went for %d", h, k)
			}
		}
	}
}

// What is moved to close a gap is found again, and what went is not.
func TestObjects_AgreesWithAMap(t *testing.T) {
	const limit = 32
	o := newObjects[int, int](limit)
	for range 5_000 {
		k := rand.IntN(3 * limit)
		o.put(k, k, &sighting{})
		found := 0
		for k := range 3 * limit {
			if got := o.get(k); got != nil {
				if got.key != k || got.value != k {
					t.Fatalf("%d is %+v", k, got)
				}
				found++
			}
		}
		if found != o.held() || found != o.len {
			t.Fatalf("%d found of %d, counted %d", found, o.held(), o.len)
		}
	}
}

func TestObjects_ManyAtOnce(t *testing.T) {
	const limit = 64
	o := newObjects[int, int](limit)
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for range 20_000 {
				k := rand.IntN(2 * limit)
				if got := o.get(k); got != nil && got.value != 2*k {
					t.Errorf("%d is %d", k, got.value)
					return
				}
				o.put(k, 2*k, &sighting{})
			}
		})
	}
	g.Wait()
	if o.held() != o.len || o.len > limit {
		t.Fatalf("%d held, counted %d, limit %d", o.held(), o.len, limit)
	}
}
