package aggregator

import "time"

// Observer is told what the aggregator does, for metrics. Its methods must not
// block.
type Observer interface {
	// Flushed: a flush of txs transactions left as entries, took d from being
	// taken to its broadcast's acknowledgement, and held transactions as old as oldest.
	Flushed(txs, entries int, d time.Duration, oldest time.Time)
	// Rebuilt: the queries for so many keys of a module took d.
	Rebuilt(module string, keys int, d time.Duration)
	// SetAside: so many faults of a module went to the dead letters.
	SetAside(module string, faults int)
	// Raised: a module's generation was raised.
	Raised(module string)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Flushed implements Observer.
func (NopObserver) Flushed(int, int, time.Duration, time.Time) {}

// Rebuilt implements Observer.
func (NopObserver) Rebuilt(string, int, time.Duration) {}

// SetAside implements Observer.
func (NopObserver) SetAside(string, int) {}

// Raised implements Observer.
func (NopObserver) Raised(string) {}
