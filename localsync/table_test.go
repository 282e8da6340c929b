package localsync

import (
	"maps"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// Few slots and fewer hashes, so that rows give way to each other, around the end too.
func TestTable_IsAMapOfRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, want := newTable(rapid.IntRange(0, 8).Draw(t, "room")), map[uint64]meta{}
		table.spread = rapid.Uint64().Draw(t, "spread") | 1
		hash := rapid.Uint64Range(0, 30)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				h, m := hash.Draw(t, "hash"), meta{body: rapid.Uint32().Draw(t, "body")}
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
		table.put(h*1099511628211, meta{})
		if h > 100 && len(table.slots)*10 > table.len*16 {
			t.Fatalf("%d slots for %d rows", len(table.slots), table.len)
		}
	}
}
