package localsync

import (
	"fmt"
	"maps"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// Few slots and fewer hashes, so that rows give way to each other, around the end too.
func TestTable_IsAMapOfRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, want := newTable(rapid.IntRange(0, 8).Draw(t, "room")), map[uint64]meta{}
		table.seed = rapid.Uint64().Draw(t, "seed")
		hash := rapid.Uint64Range(0, 30)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				h, m := hash.Draw(t, "hash"), meta{body: rapid.Uint32().Draw(t, "body")}
				if table.full() {
					table = table.larger()
				}
				if old := table.put(h, m); old != want[h] {
					t.Fatalf("put says that %+v was there, want %+v", old, want[h])
				}
				want[h] = m
			},
			"remove": func(t *rapid.T) {
				h := hash.Draw(t, "hash")
				if old := table.remove(h); old != want[h] {
					t.Fatalf("remove says that %+v was there, want %+v", old, want[h])
				}
				delete(want, h)
			},
			"": func(t *rapid.T) {
				for h := range uint64(31) {
					m, ok := want[h]
					if got := table.get(h); (got != nil) != ok || ok && *got != m {
						t.Fatalf("hash %d has %+v, want %+v (%v)", h, got, m, ok)
					}
				}
				all := map[uint64]meta{}
				for h, m := range table.all() {
					all[h] = *m
				}
				if table.len != len(want) || !maps.Equal(all, want) {
					t.Fatalf("%d rows, %v; want %v", table.len, all, want)
				}
			},
		})
	})
}

// A read of 100 MB at random waits for each line of the processor's cache.
func TestTable_RowIsOneCacheLine(t *testing.T) {
	if size := unsafe.Sizeof(tableSlot{}); size != 64 {
		t.Errorf("%d bytes, want 64", size)
	}
}

// It grows by a quarter, so that fewer than six slots in sixteen are empty.
func TestTable_IsNotMuchLargerThanItsRows(t *testing.T) {
	table := newTable(0)
	for h := range uint64(100_000) {
		if table.full() {
			table = table.larger()
		}
		table.put(h*1099511628211, meta{})
		if h > 100 && len(table.slots)*10 > table.len*16 {
			t.Fatalf("%d slots for %d rows", len(table.slots), table.len)
		}
	}
}

func TestTable_HasRoomForAsManyAsSaid(t *testing.T) {
	for n := range 2000 {
		table := newTable(n)
		for h := range n {
			if table.full() {
				t.Fatalf("room for %d of %d", h, n)
			}
			table.put(uint64(h), meta{})
		}
		if table.get(uint64(n)) != nil { // the search ends
			t.Fatal("a row that nobody put")
		}
	}
}

// Hashes of names that differ in a few digits are far from random.
func TestTable_SearchesAreShort(t *testing.T) {
	const rows, hall = 15_000, 150
	for range 30 {
		table := newTable(rows)
		for i := range rows {
			table.put(nameHash(fmt.Sprintf("seat:1:%d:%d", i/hall, i%hall)), meta{})
		}
		steps := 0
		for i := range table.slots {
			if s := &table.slots[i]; s.full {
				steps += table.distance(table.home(s.hash), i)
			}
		}
		if mean := float64(steps) / rows; mean > 4 { // 2 where hashes are random
			t.Fatalf("a search goes on for %.1f slots on average", mean)
		}
	}
}
