package publisher

import (
	"time"

	"github.com/rowtide/rowtide/internal/overwrite"
)

// Observer is told what the publisher does, for metrics. Its methods must not
// block and may be called from several goroutines.
type Observer interface {
	// Overwrote: n keys of the module had this result. A key of another type is
	// told once, however often its write is repeated.
	Overwrote(module string, result overwrite.Result, n int)
	// Broadcast: n invalidations were acknowledged after d.
	Broadcast(n int, d time.Duration)
	// RedisAway: Redis refuses writes (err) or accepts them again (nil).
	RedisAway(err error)
	// KafkaAway: Kafka refuses records (err) or accepts them again (nil).
	KafkaAway(err error)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Overwrote implements Observer.
func (NopObserver) Overwrote(string, overwrite.Result, int) {}

// Broadcast implements Observer.
func (NopObserver) Broadcast(int, time.Duration) {}

// RedisAway implements Observer.
func (NopObserver) RedisAway(error) {}

// KafkaAway implements Observer.
func (NopObserver) KafkaAway(error) {}
