package localsync

import (
	"math"
	"time"

	"github.com/rowtide/rowtide"
)

// meta is the side table's row of a resident entry: 48 bytes and no pointers, so
// that the garbage collector never walks the table. Ages live here and not in
// the bytes, because bigcache's queue only appends: a refresh that found nothing
// new touches 48 bytes instead of writing the value again.
type meta struct {
	version rowtide.Version
	// verified is when the read began that last showed the value to be current,
	// in nanoseconds of the cache's clock. All ages count from here and none is
	// ever extended by a read of the cache (race R13).
	verified int64
	// In milliseconds after verified.
	soft  uint32 // refresh behind the next read
	hard  uint32 // gone
	quiet uint32 // do not try again before; set when an attempt failed
	// body numbers the writes to the shard's arena: a later one is larger, and two
	// rows of a key with one body are of the same bytes.
	body  uint32
	at    uint32 // where the entry is in the arena
	size  uint32 // of the entry there
	part  uint16
	flags metaFlags
}

type metaFlags uint8

const (
	// metaInvalid: an invalidation newer than version was heard.
	metaInvalid metaFlags = 1 << iota
	// metaFill: a loader made the value.
	metaFill
	// metaEmpty: an EMPTY entry.
	metaEmpty
	// metaDegraded: an EMPTY that stands for an error (race R15). It has no
	// version of its own and never reaches Redis or Peek.
	metaDegraded
	// metaQuietRefresh: what failed was a refresh, which says nothing about
	// whether a check would.
	metaQuietRefresh
)

func (m *meta) has(f metaFlags) bool { return m.flags&f != 0 }

func (m *meta) softAt() int64  { return m.verified + int64(m.soft)*int64(time.Millisecond) }
func (m *meta) hardAt() int64  { return m.verified + int64(m.hard)*int64(time.Millisecond) }
func (m *meta) quietAt() int64 { return m.verified + int64(m.quiet)*int64(time.Millisecond) }

// touch makes m the row of old's bytes.
func (m *meta) touch(old *meta, what outcome) {
	m.body, m.at, m.size = old.body, old.at, old.size
	if what == touchOld {
		const of = metaFill | metaEmpty
		m.flags = m.flags&^of | old.flags&of
	}
}

// hush takes note that an attempt failed at now: no other before retryAfter.
func (m *meta) hush(now int64, refresh bool) {
	m.quiet = millis(time.Duration(now-m.verified) + retryAfter)
	m.flags &^= metaQuietRefresh
	if refresh {
		m.flags |= metaQuietRefresh
	}
}

// hushed reports whether an attempt failed lately, and not before doubt: what
// failed before there was a reason to check is no reason not to.
func (m *meta) hushed(now, doubt int64) bool {
	at := m.quietAt()
	return now < at && at-int64(retryAfter) >= doubt
}

// millis rounds to milliseconds and saturates (at 49 days).
func millis(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}
