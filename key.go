package rowtide

import "strconv"

// Key names one entry: the module, the module's version (a bump is a new key
// space) and the id that the module's key template yields.
type Key struct {
	Module  string
	Version uint16
	ID      string
}

// AppendRedis appends the key's name in Redis, the only spelling there is:
// prefix:module:version:id.
func (k Key) AppendRedis(dst []byte, prefix string) []byte {
	dst = append(dst, prefix...)
	dst = append(dst, ':')
	dst = append(dst, k.Module...)
	dst = append(dst, ':')
	dst = strconv.AppendUint(dst, uint64(k.Version), 10)
	dst = append(dst, ':')
	return append(dst, k.ID...)
}

// Redis is AppendRedis as a string.
func (k Key) Redis(prefix string) string {
	return string(k.AppendRedis(make([]byte, 0, len(prefix)+len(k.Module)+len(k.ID)+8), prefix))
}

// String is "module/version/id", for people.
func (k Key) String() string {
	return k.Module + "/" + strconv.Itoa(int(k.Version)) + "/" + k.ID
}

// FNV-1a, 64 bit: in every language's reach, which matters more for a published
// contract than the last nanosecond.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// Hash is FNV-1a 64 over module, one zero byte and id. The module's version is
// left out, so that a key stays in its Kafka partition when the version moves.
// It is the key check of an envelope and the seed of [Key.Partition].
func (k Key) Hash() uint64 {
	h := uint64(fnvOffset)
	for i := 0; i < len(k.Module); i++ {
		h = (h ^ uint64(k.Module[i])) * fnvPrime
	}
	h *= fnvPrime // the zero byte: h ^ 0 == h
	for i := 0; i < len(k.ID); i++ {
		h = (h ^ uint64(k.ID[i])) * fnvPrime
	}
	return h
}

// Partition is the Kafka partition of the key's invalidations among n (n > 0).
// Both halves of the hash are folded in: FNV's low bits alone mix badly over
// short numeric ids.
func (k Key) Partition(n int32) int32 { return HashPartition(k.Hash(), n) }

// HashPartition is [Key.Partition] for a hash already at hand.
func HashPartition(h uint64, n int32) int32 {
	return int32((h ^ h>>32) % uint64(n))
}
