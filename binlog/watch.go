package binlog

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// watchPoll is how often a Watch looks whether the transaction that is being read
// has ended.
const watchPoll = time.Millisecond

// events lets the tables change between two events. Its mutex is held while an
// event is taken in, which may be long: a handler that blocks holds it.
type events struct {
	mu   sync.Mutex
	asm  *assembler               // of the present connection
	list atomic.Pointer[[]string] // the watched tables, for other goroutines
}

// watches reports whether a table is watched.
func (s *Source) watches(table string) bool { return slices.Contains(*s.events.list.Load(), table) }

// Watch makes tables the ones that [Source.Run] decodes. When it returns nil,
// every transaction that the handler has not been given yet was, or will be,
// decoded for them. It waits for the end of the transaction that is being read;
// the handler must not be waiting for the caller.
func (s *Source) Watch(ctx context.Context, tables []string) error {
	next := map[string]bool{}
	for _, t := range tables {
		next[t] = true
	}
	for {
		if s.events.mu.TryLock() {
			free := s.events.asm == nil || !s.events.asm.group
			if free {
				// In place: the assembler and the backfiller share the map.
				clear(s.watched)
				maps.Copy(s.watched, next)
				s.events.list.Store(&tables)
				if s.events.asm != nil {
					s.events.asm.forgetUnwatched()
				}
			}
			s.events.mu.Unlock()
			if free {
				return nil
			}
		}
		select {
		case <-time.After(watchPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
