package localsync

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/allegro/bigcache/v3"
)

// arena holds the bytes of one shard: a bigcache of a single shard that is only
// ever filled up. bigcache appends on every Set and what was written before stays
// where it is until it is the oldest, when it goes whether it is live or not; so
// neither its growth nor its eviction is let happen. When an arena is full the
// live entries move to a fresh one (store.compact), and it is garbage as a whole.
type arena struct {
	cache      *bigcache.BigCache
	room, used int
}

const (
	// entryOverhead is what bigcache adds to an entry at most, our key included.
	entryOverhead = 5 + 18 + 8
	// nameLength is the bytes of a name's length, in front of the name.
	nameLength = 2
)

// footprint is the bytes that an entry takes.
func footprint(blob []byte) int { return entryOverhead + len(blob) }

// newArena has room for size bytes less one per entry, and never takes more.
func newArena(size, entries int) *arena {
	n := max(entries, 10) // bigcache's own least
	cache, err := bigcache.New(context.Background(), bigcache.Config{
		Shards: 1,
		// Multiplied they are the first size of the queue, here its last.
		MaxEntriesInWindow: n,
		MaxEntrySize:       size / n,
		LifeWindow:         math.MaxInt64, // ages are ours
		Hasher:             arenaHasher{},
	})
	if err != nil {
		panic(err) // of settings that are right whatever size and entries are
	}
	return &arena{cache: cache, room: cache.Capacity() - 1} // it leaves out the first byte
}

func (a *arena) fits(blob []byte) bool { return a.used+footprint(blob) <= a.room }

// set writes an entry that fits.
func (a *arena) set(hash uint64, blob []byte) {
	a.used += footprint(blob)
	if err := a.cache.Set(arenaKey(hash), blob); err != nil {
		panic(err) // it fails only for what is larger than its limit, and has none
	}
}

// get is a copy of an entry's bytes.
func (a *arena) get(hash uint64) ([]byte, bool) {
	blob, err := a.cache.Get(arenaKey(hash))
	return blob, err == nil
}

// arenaKey is the hash itself: the name is in the blob, so that live entries can
// be moved without knowing their names, and is not hashed twice.
func arenaKey(hash uint64) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], hash)
	return string(b[:])
}

type arenaHasher struct{}

func (arenaHasher) Sum64(key string) (hash uint64) {
	for i := range 8 {
		hash |= uint64(key[i]) << (8 * i)
	}
	return hash
}

// pack puts the name before the envelope.
func pack(name string, envelope []byte) []byte {
	blob := make([]byte, 0, nameLength+len(name)+len(envelope))
	blob = binary.LittleEndian.AppendUint16(blob, uint16(len(name)))
	return append(append(blob, name...), envelope...)
}

// unpack is the envelope, if the blob is that of the name: of two names with one
// hash the other is a miss (race R24).
func unpack[T string | []byte](blob []byte, name T) (envelope []byte, ok bool) {
	n := nameLength + len(name)
	if len(blob) < n || int(binary.LittleEndian.Uint16(blob)) != len(name) || string(blob[nameLength:n]) != string(name) {
		return nil, false
	}
	return blob[n:], true
}
