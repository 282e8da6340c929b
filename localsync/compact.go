package localsync

import (
	"cmp"
	"slices"
)

// spareBytes is the room that even an empty shard has.
const spareBytes = 8 << 10

// compact moves the shard's live entries to a fresh arena with room for need bytes
// and a quarter of all of it more: so an arena is made at most a quarter larger than
// what is live in it, and moving costs four bytes for each that is written. The
// caller has the shard's turn and not its lock: readers go on with the old arena.
//
// The last eighth of a shard's share of the budget is only for moving in. When what
// is live would begin on it the oldest written go, and another eighth of the share
// with them, lest the next write is in the same place.
func (s *store) compact(sh *shard, need int, now int64) {
	s.drop(sh, expired(sh, now))
	if sh.live+need > s.share/8*7 {
		old := oldest(sh, sh.live+need-s.share/4*3)
		s.drop(sh, old)
		s.evictions.Add(uint64(len(old)))
	}
	live := sh.live + need
	next, rows := newArena(min(live+live/4+spareBytes, s.share)), newTable(sh.rows.len+sh.rows.len/4+1)
	for hash, m := range sh.rows.all() {
		moved := *m // readers see the old one
		moved.at = next.add(sh.bytes.get(m.at))
		rows.put(hash, moved)
	}
	sh.mu.Lock()
	sh.bytes, sh.rows = next, rows
	sh.mu.Unlock()
	s.compactions.Add(1)
}

func (s *store) drop(sh *shard, hashes []uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, hash := range hashes {
		s.remove(sh, hash)
	}
}

func expired(sh *shard, now int64) (hashes []uint64) {
	for hash, m := range sh.rows.all() {
		if now >= m.hardAt() {
			hashes = append(hashes, hash)
		}
	}
	return hashes
}

// oldest are the entries written first that take so many bytes together.
func oldest(sh *shard, size int) []uint64 {
	type entry struct {
		hash      uint64
		age, size uint32
	}
	entries := make([]entry, 0, sh.rows.len)
	for hash, m := range sh.rows.all() {
		// By age, which does not mind that the numbers come round.
		entries = append(entries, entry{hash, sh.writes - m.body, m.size})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(b.age, a.age) })
	var hashes []uint64
	for _, e := range entries {
		if size <= 0 {
			break
		}
		size -= int(e.size)
		hashes = append(hashes, e.hash)
	}
	return hashes
}
