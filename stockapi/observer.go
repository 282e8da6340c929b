package stockapi

import "time"

// Observer hears what the stock API does; implement it to export metrics. Calls
// come from many goroutines and must not block. Embed [NopObserver] to implement a
// part and to stay compatible when hooks are added.
type Observer interface {
	// Operation is one call of a script: op is hold, confirm, cancel, expire or
	// load; code is ok, replay, unknown, error or a refusal's Code.
	Operation(op, code string, took time.Duration)
	// Relayed is a run of events that Kafka acknowledged; pending is how many wait
	// in the outbox after it.
	Relayed(c Cell, events int, pending int64, took time.Duration)
	// RelayFailed is an attempt that will be repeated.
	RelayFailed(c Cell, err error)
	// LedgerBatch is a committed transaction: events seen and, of these, applied
	// (the rest were repetitions). Lag is the age of the oldest applied event.
	LedgerBatch(partition int32, events, applied int, lag, took time.Duration)
	// LedgerRetry is a transaction that will be repeated.
	LedgerRetry(partition int32, err error)
	// LedgerStopped is a loud stop: ErrGap, ErrDivergence, ErrFenced, ErrBadEvent.
	LedgerStopped(partition int32, err error)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Operation does nothing.
func (NopObserver) Operation(string, string, time.Duration) {}

// Relayed does nothing.
func (NopObserver) Relayed(Cell, int, int64, time.Duration) {}

// RelayFailed does nothing.
func (NopObserver) RelayFailed(Cell, error) {}

// LedgerBatch does nothing.
func (NopObserver) LedgerBatch(int32, int, int, time.Duration, time.Duration) {}

// LedgerRetry does nothing.
func (NopObserver) LedgerRetry(int32, error) {}

// LedgerStopped does nothing.
func (NopObserver) LedgerStopped(int32, error) {}
