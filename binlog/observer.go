package binlog

import (
	"time"

	"github.com/rowtide/rowtide"
)

// Observer is told what a source does, for metrics. Its methods are called on
// the reading goroutine, unless they say otherwise, and must not block.
type Observer interface {
	// Connected: a stream has begun.
	Connected()
	// Disconnected: the stream broke and will be opened again.
	Disconnected(err error)
	// Received: the handler took tx, which is only valid during the call.
	Received(tx *rowtide.Tx)
	// CheckpointAway: the checkpoint cannot be saved (err) or can again (nil). It
	// is called on the goroutine that saves.
	CheckpointAway(err error)
	// Backfilled: a chunk was handed over with rows read rows; dropped more had
	// been changed meanwhile and were left to the log. It is called on the
	// backfiller's goroutine, like the next two.
	Backfilled(rows, dropped int)
	// BackfillState: a backfill is running or not, with about so many rows to go.
	BackfillState(running bool, remaining int64)
	// BackfillFailed: a request was given up.
	BackfillFailed()
	// HeartbeatCovered: a heartbeat row is covered by the checkpoint, so long after
	// it was written. It is called on a goroutine of its own.
	HeartbeatCovered(after time.Duration)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Connected implements Observer.
func (NopObserver) Connected() {}

// Disconnected implements Observer.
func (NopObserver) Disconnected(error) {}

// CheckpointAway implements Observer.
func (NopObserver) CheckpointAway(error) {}

// Received implements Observer.
func (NopObserver) Received(*rowtide.Tx) {}

// Backfilled implements Observer.
func (NopObserver) Backfilled(int, int) {}

// BackfillState implements Observer.
func (NopObserver) BackfillState(bool, int64) {}

// BackfillFailed implements Observer.
func (NopObserver) BackfillFailed() {}

// HeartbeatCovered implements Observer.
func (NopObserver) HeartbeatCovered(time.Duration) {}
