package localsync

import (
	"testing"

	"github.com/rowtide/rowtide"
)

// A reader may find nothing but loads that began for readers who want less.
func TestAtLeast_ResultOfOthersReadsThatIsOlderIsMarked(t *testing.T) {
	m := &core{c: &Cache{store: testStore(1 << 20), parts: newPartitions(1, 0)}, flights: map[string]*flight{}}
	k := rowtide.Key{Module: "event", Version: 1, ID: "1"}
	j := job{slot: slot{key: k, name: localName(k), hash: nameHash(localName(k))}}
	f := &flight{job: j, done: make(chan struct{}), res: result{version: 90}}
	close(f.done)
	m.flights[j.name] = f // as if there were another each time
	for want, stale := range map[rowtide.Version]bool{0: false, 90: false, 200: true} {
		r := m.fetch(AtLeast(t.Context(), want), []job{j})[0]
		if r.err != nil || r.version != 90 || r.stale != stale {
			t.Fatalf("at least %d: %+v, want 90 with stale %v", want, r, stale)
		}
	}
}
