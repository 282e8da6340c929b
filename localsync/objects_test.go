package localsync

import (
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"
)

// held counts what is in the sets.
func (t *objects[K, V]) held() (n int) {
	for i := range t.sets {
		for at := range ways {
			if t.sets[i].objects[at].Load() != nil {
				n++
			}
		}
	}
	return n
}

func TestObjects_KeepsAboutAsManyAsSaid(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 64, 150, 20_000} {
		o := newObjects[int, int](limit)
		for k := range limit {
			o.put(k, -k, &sighting{})
		}
		lost := 0
		for k := range limit {
			if got := o.get(k); got == nil {
				lost++
			} else if got.key != k || got.value != -k {
				t.Fatalf("limit %d: %d is %+v", limit, k, got)
			}
		}
		if lost > 2+limit/200 { // one in a thousand on average
			t.Errorf("limit %d: %d did not fit", limit, lost)
		}
		for k := range 10 * limit {
			o.put(limit+k, k, &sighting{})
			o.put(limit+k, k+1, &sighting{})
			if got := o.get(limit + k); got == nil || got.value != k+1 {
				t.Fatalf("limit %d: %d is %+v after it was put", limit, limit+k, got)
			}
		}
		if n, most := o.held(), limit+limit/4+ways; n < limit || n > most {
			t.Errorf("%d held, limit %d, want %d at most", n, limit, most)
		}
	}
	if o := newObjects[int, int](0); o.get(1) != nil {
		t.Fatal("an object of no table")
	}
}

func TestObjects_SetIsOneCacheLine(t *testing.T) {
	if size := unsafe.Sizeof(objectSet[int, int]{}); size != 64 {
		t.Errorf("%d bytes, want 64", size)
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

// What is read by all without a pause makes room all the same.
func TestObjects_OneOfThoseReadGoes(t *testing.T) {
	o := newObjects[int, int](1)
	for k := range 10 * ways {
		for of := range k {
			o.get(of)
		}
		o.put(k, k, &sighting{})
		if got := o.get(k); got == nil || got.value != k {
			t.Fatalf("%d is %+v after it was put", k, got)
		}
	}
	if n := o.held(); n != ways {
		t.Errorf("%d held, want %d", n, ways)
	}
}

// What stands in one place is one key's, and is found by no other.
func TestObjects_NoKeyIsThereTwice(t *testing.T) {
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
		if found != o.held() {
			t.Fatalf("%d found of %d", found, o.held())
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
	if n := o.held(); n > limit+limit/4+ways {
		t.Fatalf("%d held, limit %d", n, limit)
	}
}
