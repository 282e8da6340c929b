package localsync

import (
	"errors"
	"fmt"
)

// Each sentinel is a decision handed to the caller.
var (
	// ErrNotFound means the thing is known to be absent: show the "no such"
	// page. It is never used for "could not find out", except by a module with
	// OnError Optional, whose Info then says Degraded.
	ErrNotFound = errors.New("not found")

	// ErrClosed means the cache was closed. Stop using it.
	ErrClosed = errors.New("cache is closed")

	// ErrLoad means that nothing could be served because Redis had no usable
	// value and the loader failed, panicked or overran its deadline; the cause is
	// wrapped too. Answer as for a failed database call. Nothing was remembered,
	// so a later read tries again.
	ErrLoad = errors.New("load failed")

	// ErrTopicMissing means the invalidation topic does not exist. Start the
	// daemon first: it creates the topic with the right number of partitions.
	ErrTopicMissing = errors.New("topic does not exist")
)

// PartialError is returned by GetMany when some keys could not be read. The map
// that comes with it holds all the others; it is safe to use.
type PartialError[K comparable] struct {
	// Failed holds the cause per key. A key that is merely absent is not here.
	Failed map[K]error
}

// Error names the number of keys and one of the causes.
func (e *PartialError[K]) Error() string {
	for k, err := range e.Failed {
		return fmt.Sprintf("read %d keys, one of them %v: %v", len(e.Failed), k, err)
	}
	return "read 0 keys"
}

// Unwrap gives errors.Is and errors.As the causes of all keys.
func (e *PartialError[K]) Unwrap() []error {
	out := make([]error, 0, len(e.Failed))
	for _, err := range e.Failed {
		out = append(out, err)
	}
	return out
}
