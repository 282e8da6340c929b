package rowtide_test

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
)

// The figures are published ones: draft-eastlake-fnv, appendix C, test strings
// with their terminating zero byte (a key without id is its module and a zero).
func TestKeyHash_PublishedFNV1a(t *testing.T) {
	for module, want := range map[string]uint64{
		"":       0xaf63bd4c8601b7df,
		"a":      0x089be207b544f1e4,
		"b":      0x08a61407b54d9b5f,
		"foobar": 0x34531ca7168b8f38,
	} {
		if got := (rowtide.Key{Module: module, Version: 3}).Hash(); got != want {
			t.Errorf("%q: %016x, want %016x", module, got, want)
		}
	}
}

func TestKeyHash_IsFNV1aOfModuleZeroID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rowtide.Key{Module: rapid.String().Draw(t, "module"), Version: rapid.Uint16().Draw(t, "version"), ID: rapid.String().Draw(t, "id")}
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%s", k.Module, k.ID)
		if got, want := k.Hash(), h.Sum64(); got != want {
			t.Fatalf("%016x, want %016x", got, want)
		}
	})
}

func TestKeyHash_SeparatesModuleFromID(t *testing.T) {
	a, b := rowtide.Key{Module: "ab", ID: "c"}, rowtide.Key{Module: "a", ID: "bc"}
	if a.Hash() == b.Hash() {
		t.Errorf("%v and %v share a hash", a, b)
	}
}

// A bump of the module's version must not move a key to another partition:
// nodes that read both versions during the switch follow one order.
func TestPartition_IgnoresTheModuleVersion(t *testing.T) {
	k := rowtide.Key{Module: "event", Version: 1, ID: "42"}
	later := k
	later.Version = 2
	if got, want := later.Partition(12), k.Partition(12); got != want {
		t.Errorf("partition %d, want %d", got, want)
	}
}

// Short numeric ids are what most tables have, and what FNV's low bits mix
// badly. The bound is chi-squared at p = 0.001 for 11 degrees of freedom, with
// room: a poor hash misses it by factors.
func TestPartition_SpreadsShortNumericIDs(t *testing.T) {
	const parts, limit = 12, 60
	for _, ids := range []struct{ from, to, step int }{{0, 100, 1}, {0, 1000, 1}, {1, 10000, 1}, {1000, 100000, 10}, {0, 120000, 12}} {
		var hits [parts]int
		n := 0
		for i := ids.from; i < ids.to; i += ids.step {
			p := rowtide.Key{Module: "event", Version: 1, ID: strconv.Itoa(i)}.Partition(parts)
			if p < 0 || p >= parts {
				t.Fatalf("partition %d of %d", p, parts)
			}
			hits[p]++
			n++
		}
		var chi float64
		want := float64(n) / parts
		for _, h := range hits {
			chi += (float64(h) - want) * (float64(h) - want) / want
		}
		if chi > limit {
			t.Errorf("ids %v: chi-squared %.1f over %v, want at most %d", ids, chi, hits, limit)
		}
	}
}

func TestHashPartition_AgreesWithTheKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rowtide.Key{Module: "m", ID: rapid.String().Draw(t, "id")}
		n := rapid.Int32Range(1, 1<<31-1).Draw(t, "partitions")
		got := k.Partition(n)
		if got < 0 || got >= n || got != rowtide.HashPartition(k.Hash(), n) {
			t.Fatalf("partition %d of %d, by hash %d", got, n, rowtide.HashPartition(k.Hash(), n))
		}
	})
}

func TestKey_Names(t *testing.T) {
	k := rowtide.Key{Module: "event_page", Version: 3, ID: "7:é"}
	if got, want := k.Redis("shop"), "shop:event_page:3:7:é"; got != want {
		t.Errorf("redis %q, want %q", got, want)
	}
	if got, want := string(k.AppendRedis([]byte("x "), "shop")), "x shop:event_page:3:7:é"; got != want {
		t.Errorf("appended %q, want %q", got, want)
	}
	if got, want := k.String(), "event_page/3/7:é"; got != want {
		t.Errorf("string %q, want %q", got, want)
	}
}
