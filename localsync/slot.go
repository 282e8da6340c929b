package localsync

import "github.com/rowtide/rowtide"

// slot is where a key lives on this node.
type slot struct {
	key  rowtide.Key
	name string // in the local store: the Redis key without its prefix
	hash uint64 // of name; it keys the side table and the floors
	part uint16 // the bus partition of the key's invalidations
}

func (c *Cache) slot(k rowtide.Key) slot {
	name := localName(k)
	return slot{key: k, name: name, hash: nameHash(name), part: uint16(k.Partition(c.partitions))}
}

// localName is "module:version:id".
func localName(k rowtide.Key) string {
	var stack [96]byte
	return string(appendLocalName(stack[:0], k))
}

// appendLocalName uses the one spelling there is: with an empty prefix the Redis
// key begins with the colon that follows the prefix. dst must be empty.
func appendLocalName(dst []byte, k rowtide.Key) []byte {
	return k.AppendRedis(dst, "")[1:]
}

func (c *Cache) redisName(s *slot) string { return c.opt.Prefix + ":" + s.name }

// nameHash is FNV-1a 64, of which names that begin alike share the beginning.
// One hash finds the bytes, the side table's row and the floor, and the shard of
// all three.
func nameHash[T string | []byte](name T) uint64 { return hashOn(14695981039346656037, name) }

func hashOn[T string | []byte](h uint64, more T) uint64 {
	for i := 0; i < len(more); i++ {
		h = (h ^ uint64(more[i])) * 1099511628211
	}
	return h
}
