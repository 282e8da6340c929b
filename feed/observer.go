package feed

import "github.com/rowtide/rowtide"

// Observer is told what a source does, for metrics. Its methods must not block;
// they are called from several goroutines.
type Observer interface {
	// Connected: every partition is being read.
	Connected()
	// Disconnected: a partition cannot be read and will be tried again.
	Disconnected(err error)
	// Received: the handler took tx, which is only valid during the call.
	Received(tx *rowtide.Tx)
	// PassedOver: a record holds no change of a watched table; why is ddl, table,
	// tombstone or other.
	PassedOver(why string)
	// CheckpointAway: the checkpoint cannot be saved (err) or can again (nil).
	CheckpointAway(err error)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Connected implements Observer.
func (NopObserver) Connected() {}

// Disconnected implements Observer.
func (NopObserver) Disconnected(error) {}

// Received implements Observer.
func (NopObserver) Received(*rowtide.Tx) {}

// PassedOver implements Observer.
func (NopObserver) PassedOver(string) {}

// CheckpointAway implements Observer.
func (NopObserver) CheckpointAway(error) {}
