package localsync

import (
	"encoding/binary"
	"math/bits"

	bytesqueue "github.com/allegro/bigcache/v3/queue"
)

// arena holds the bytes of one shard: bigcache's queue, without bigcache's own index
// of it, since the side table's rows say where their bytes are. It is only ever
// filled up. bigcache appends on every Set and what was written before stays where
// it is until it is the oldest, when it goes whether it is live or not; so neither
// its growth nor its eviction is let happen. When an arena is full the live entries
// move to a fresh one (store.compact), and it is garbage as a whole.
type arena struct {
	queue      *bytesqueue.BytesQueue
	room, used int
}

// nameLength is the bytes of a name's length, in front of the name.
const nameLength = 2

// footprint is the bytes that an entry takes at most: the queue puts its length,
// seven bits to a byte, before it.
func footprint(blob []byte) int { return len(blob) + bits.Len(uint(len(blob)+4))/7 + 1 }

// newArena has room for size bytes less one.
func newArena(size int) *arena {
	return &arena{queue: bytesqueue.NewBytesQueue(size, size, false), room: size - 1} // it leaves out the first byte
}

func (a *arena) fits(blob []byte) bool { return a.used+footprint(blob) <= a.room }

// add writes an entry that fits and returns where it is.
func (a *arena) add(blob []byte) (at uint32) {
	a.used += footprint(blob)
	i, err := a.queue.Push(blob)
	if err != nil {
		panic(err) // it fails only for what does not fit
	}
	return uint32(i)
}

// get is an entry's bytes, not a copy.
func (a *arena) get(at uint32) []byte {
	blob, err := a.queue.Get(int(at))
	if err != nil {
		panic(err) // of a place that add never gave
	}
	return blob
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
