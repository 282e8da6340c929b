package binlog

import "github.com/rowtide/rowtide"

// Observer is told what a source does, for metrics. Its methods are called on
// the reading goroutine and must not block.
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
