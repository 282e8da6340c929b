package localsync

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
)

const farOff = 24 * time.Hour

func testStore(maxBytes int) *store {
	return newStore(&Options{MaxBytes: maxBytes, MaxFloors: 1 << 10, FloorAge: time.Minute}, newPartitions(1, 0), 0)
}

// keepNamed keeps a value under a name of its own, at the version.
func keepNamed(s *store, id int, v rowtide.Version, value string, now int64) Refusal {
	k := rowtide.Key{Module: "event", Version: 1, ID: fmt.Sprint(id)}
	name := localName(k)
	return s.keep(&candidate{
		slot: slot{key: k, name: name, hash: nameHash(name)}, began: now, soft: farOff, hard: farOff,
		entry: rowtide.Entry{Key: k, Version: v, Payload: []byte(value)},
	}, now)
}

func readNamed(s *store, id int) (value string, ok bool) {
	name := localName(rowtide.Key{Module: "event", Version: 1, ID: fmt.Sprint(id)})
	envelope, _, ok := s.read([]byte(name), nameHash(name), 0)
	if !ok {
		return "", false
	}
	return string(envelope[rowtide.EnvelopeHeader:]), true
}

// wantInStep checks that the rows, the bytes and the sums agree.
func wantInStep(t *testing.T, s *store) StoreStats {
	t.Helper()
	for i := range s.shards {
		sh := &s.shards[i]
		live := 0
		for hash, m := range sh.rows.all() {
			live += int(m.size)
			if blob := sh.bytes.get(m.at); footprint(blob) != int(m.size) {
				t.Fatalf("shard %d: row %x of %d bytes has %d", i, hash, m.size, len(blob))
			}
		}
		if live != sh.live {
			t.Fatalf("shard %d: rows have %d bytes, the shard says %d", i, live, sh.live)
		}
		if have := sh.bytes.queue.Capacity(); have != sh.bytes.room+1 || have > s.share {
			t.Fatalf("shard %d: the queue went from %d to %d bytes of %d", i, sh.bytes.room+1, have, s.share)
		}
	}
	return s.stats()
}

// kilobyte is 1 KiB that differs per version.
func kilobyte(v rowtide.Version) string {
	head := fmt.Sprintf("%020d", v)
	return head + strings.Repeat("x", 1024-len(head))
}

// A day of refreshes once a minute. bigcache alone grew to seventy times what was
// live within an hour of this. One shard and 40 keys are what a shard of 64 has
// of 2,560 (BenchmarkADayOfRefreshes does 10,000).
func TestStore_ADayOfRefreshesStaysWithinTheBudget(t *testing.T) {
	const keys, rounds = 40, 24 * 60
	for _, changed := range []bool{false, true} {
		t.Run(fmt.Sprintf("changed=%v", changed), func(t *testing.T) {
			s := testStore(1 << 20)
			var filled StoreStats
			for round := range rounds {
				value := kilobyte(0)
				if changed {
					value = kilobyte(rowtide.Version(round))
				}
				for id := range keys {
					if r := keepNamed(s, id, rowtide.Version(round+1), value, int64(round)*int64(time.Minute)); r != 0 {
						t.Fatalf("round %d refused %d: %v", round, id, r)
					}
				}
				st := s.stats()
				if round == 0 {
					filled = st
				}
				if st.Bytes > st.Live*3/2 || st.Bytes > 1<<20 || st.Entries != keys || st.Evicted != 0 {
					t.Fatalf("round %d: %+v", round, st)
				}
				if !changed && (st.Compactions != filled.Compactions || st.Bytes != filled.Bytes || s.shards[0].writes != keys) {
					t.Fatalf("round %d wrote what was there: %+v, first %+v", round, st, filled)
				}
			}
			t.Logf("%+v", wantInStep(t, s))
		})
	}
}

// bigcache alone evicted 78% of the cold keys within 120 rounds of four times this.
func TestStore_HotKeysEvictNoColdOnes(t *testing.T) {
	const cold, hot, rounds = 10_000, 125, 120
	s := testStore(16 << 20)
	value := kilobyte(1)
	for id := range cold {
		keepNamed(s, id, 1, value, 0)
	}
	for round := range rounds {
		value := kilobyte(rowtide.Version(2 + round))
		for id := cold; id < cold+hot; id++ {
			keepNamed(s, id, rowtide.Version(2+round), value, int64(round)*int64(time.Minute))
		}
	}
	for id := range cold {
		if got, ok := readNamed(s, id); !ok || got != value {
			t.Fatalf("cold key %d is gone", id)
		}
	}
	st := wantInStep(t, s)
	if st.Evicted != 0 || st.Entries != cold+hot || st.Bytes > st.Live*3/2 {
		t.Fatalf("%+v", st)
	}
	t.Logf("%+v", st)
}

func TestStore_OldestWrittenGoFirst(t *testing.T) {
	const keys = 5000
	s := testStore(1 << 20)
	for id := range keys {
		keepNamed(s, id, 1, kilobyte(rowtide.Version(id)), 0)
		keepNamed(s, 0, rowtide.Version(id+2), kilobyte(rowtide.Version(id)), 0) // written again and again
	}
	st := wantInStep(t, s)
	if int(st.Evicted) != keys-st.Entries || st.Live < s.share/8*5 {
		t.Fatalf("%+v: %d keys are not accounted for, or too many went", st, keys-st.Entries-int(st.Evicted))
	}
	for id := range keys {
		_, ok := readNamed(s, id)
		if want := id == 0 || id > keys-st.Entries; ok != want {
			t.Fatalf("key %d of %d is there: %v, want %v (%+v)", id, keys, ok, want, st)
		}
	}
}

func TestStore_ExpiredMakeRoomAndAreNoEvictions(t *testing.T) {
	s := testStore(1 << 20)
	for id := range 500 {
		keepNamed(s, id, 1, kilobyte(1), 0)
	}
	for id := 500; id < 1000; id++ {
		keepNamed(s, id, 1, kilobyte(1), int64(farOff)+1)
	}
	for id := 500; id < 1000; id++ {
		if _, ok := readNamed(s, id); !ok {
			t.Fatalf("key %d is gone", id)
		}
	}
	if st := wantInStep(t, s); st.Evicted != 0 {
		t.Fatalf("%+v", st)
	}
}

// R24: of two names with one hash, one is a miss, never the other's value.
func TestR24_OneHashOfTwoNamesIsAMiss(t *testing.T) {
	s := testStore(1 << 20)
	keepNamed(s, 1, 1, "one", 0)
	hash := nameHash("event:1:1")
	for _, name := range []string{"event:1:2", "event:1:", "event:1:11", ""} {
		if envelope, _, ok := s.read([]byte(name), hash, 0); ok {
			t.Errorf("%q has %q of another name", name, envelope)
		}
	}
}

// Compactions among readers, writers and invalidations: what is read is of the key
// asked for and of a version that was written, a reader never sees a key go back,
// and in the end the last writes are there.
func TestStore_CompactionLosesNothingUnderReadersAndWriters(t *testing.T) {
	const keys, writers, writes = 300, 4, 800
	s := testStore(1 << 20)
	var written [keys]atomic.Uint64
	value := func(id int, v uint64) string { return fmt.Sprintf("%d/%d/%s", id, v, kilobyte(0)) }
	for id := range keys {
		keepNamed(s, id, 1, value(id, 1), 0)
		written[id].Store(1)
	}
	var g, readers sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			for range writes { // each key has one writer, so that its versions rise
				id := rand.IntN(keys/writers)*writers + w
				v := written[id].Load() + 1
				if r := keepNamed(s, id, rowtide.Version(v), value(id, v), 0); r != 0 {
					t.Errorf("%d at %d: %v", id, v, r)
				}
				written[id].Store(v)
				s.raise(nameHash(fmt.Sprintf("event:1:%d", rand.IntN(keys))), 0, 1, 0)
			}
		})
	}
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			var last [keys]uint64
			for {
				select {
				case <-done:
					return
				default:
				}
				id := rand.IntN(keys)
				least := max(written[id].Load(), last[id])
				got, ok := readNamed(s, id)
				var of int
				var v uint64
				if n, _ := fmt.Sscanf(got, "%d/%d/", &of, &v); !ok || n != 2 || of != id || v < least || got != value(id, v) {
					t.Errorf("key %d, at %d at least: %v %.40q", id, least, ok, got)
					return
				}
				last[id] = v
			}
		})
	}
	g.Wait()
	close(done)
	readers.Wait()
	for id := range keys {
		if got, _ := readNamed(s, id); got != value(id, written[id].Load()) {
			t.Errorf("key %d ended as %.40q, want version %d", id, got, written[id].Load())
		}
	}
	st := wantInStep(t, s)
	if st.Compactions < 20 || st.Evicted != 0 {
		t.Fatalf("%+v: hardly a test", st)
	}
}

// BenchmarkADayOfRefreshes is 10,000 changed values of 1 KiB, 1440 times over.
func BenchmarkADayOfRefreshes(b *testing.B) {
	for b.Loop() {
		s := testStore(64 << 20)
		worst := 0.0
		for round := range 24 * 60 {
			value := kilobyte(rowtide.Version(round))
			for id := range 10_000 {
				keepNamed(s, id, rowtide.Version(round+1), value, int64(round))
			}
			st := s.stats()
			worst = max(worst, float64(st.Bytes)/float64(st.Live))
		}
		st := s.stats()
		b.ReportMetric(worst, "bytes/live")
		b.ReportMetric(float64(st.Bytes)/(1<<20), "MiB")
		b.ReportMetric(float64(st.Compactions), "compactions")
		b.ReportMetric(float64(st.Evicted), "evicted")
	}
}

// BenchmarkCompact is how long a full shard's writers may have to wait.
func BenchmarkCompact(b *testing.B) {
	for _, size := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := testStore(4 << 20)
			s = &store{shards: s.shards[:1], share: maxShardBytes, parts: s.parts}
			sh, blob := &s.shards[0], make([]byte, size)
			for i := uint64(0); sh.live < maxShardBytes/8*6; i++ {
				sh.lock()
				s.write(sh, i, meta{hard: 1 << 30}, blob, 0)
				sh.unlock()
			}
			b.ReportAllocs()
			for b.Loop() {
				s.compact(sh, size, 0)
			}
		})
	}
}
