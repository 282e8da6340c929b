package localsync

import (
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// marks remembers the watermarks that the bus carried, to answer one question:
// up to which version was everything applied at least `lag` ago? A value loaded
// now includes all of that, even when it was read from a replica that is lag
// behind, so this is the version a loaded value may claim (races R2, R3, R17).
type marks struct {
	lag time.Duration

	mu     sync.Mutex
	aged   rowtide.Version
	newest rowtide.Version
	ring   []mark // oldest first
}

type mark struct {
	at int64 // nanoseconds of the cache's clock
	v  rowtide.Version
}

// maxMarks bounds the ring. Marks closer together than lag/maxMarks are left
// out, which only makes the answer older, never too new.
const maxMarks = 64

func (m *marks) add(now int64, v rowtide.Version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v <= m.newest {
		return
	}
	if n := len(m.ring); n > 0 && now-m.ring[n-1].at < int64(m.lag)/maxMarks {
		return
	}
	m.settle(now)
	m.newest = v
	m.ring = append(m.ring, mark{now, v})
}

// at is the aged watermark; zero while none has been known for long enough.
func (m *marks) at(now int64) rowtide.Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle(now)
	return m.aged
}

func (m *marks) latest() rowtide.Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest
}

func (m *marks) settle(now int64) {
	n := 0
	for n < len(m.ring) && m.ring[n].at <= now-int64(m.lag) {
		m.aged = m.ring[n].v
		n++
	}
	m.ring = append(m.ring[:0], m.ring[n:]...)
}
