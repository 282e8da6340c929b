package localsync

import (
	"time"

	"github.com/rowtide/rowtide"
)

// Observer is told what happens inside. Implementations embed [NopObserver], so
// that a new hook does not break them. Hooks are called from several goroutines
// at once and must not block: Applied and Suspect run on the bus.
//
// Local hits have no hook, they are counted only ([Cache.Stats]): at a
// microsecond each, a call through an interface would be a good part of the work.
type Observer interface {
	// Opened is called once, near the end of Open: for an observer that wants c's
	// statistics too. Of the other hooks only Controlled may come before.
	Opened(c *Cache)
	// Applied follows the raising of inv's floor: from here on this node serves
	// nothing older. inv and batch are not to be kept or changed.
	Applied(inv rowtide.Invalidation, batch *rowtide.Batch)
	// Hinted follows the raising of inv's floor by news that came over Redis, as a rule
	// before Applied: from here on this node serves nothing older.
	Hinted(inv rowtide.Invalidation)
	// Suspect says that records of a partition were missed; entries kept before
	// are checked against Redis at their next read. Partition -1 is all of them.
	Suspect(partition int32, cause error)
	// Loaded follows each call of a module's loader.
	Loaded(module string, keys int, took time.Duration, err error)
	// Refused says that a value was not kept.
	Refused(module string, reason Refusal)
	// Controlled follows each record of the control topic that was understood, those
	// that Open finds there included: the module exists, in this version.
	Controlled(rowtide.ModuleControl)
}

// NopObserver ignores everything. Embed it to implement part of [Observer].
type NopObserver struct{}

// Opened does nothing.
func (NopObserver) Opened(*Cache) {}

// Applied does nothing.
func (NopObserver) Applied(rowtide.Invalidation, *rowtide.Batch) {}

// Hinted does nothing.
func (NopObserver) Hinted(rowtide.Invalidation) {}

// Suspect does nothing.
func (NopObserver) Suspect(int32, error) {}

// Loaded does nothing.
func (NopObserver) Loaded(string, int, time.Duration, error) {}

// Refused does nothing.
func (NopObserver) Refused(string, Refusal) {}

// Controlled does nothing.
func (NopObserver) Controlled(rowtide.ModuleControl) {}

// Refusal says why the store did not keep a value. The zero Refusal means that
// it was kept.
type Refusal uint8

// The reasons.
const (
	// RefusedFloor: an invalidation of something newer was heard.
	RefusedFloor Refusal = iota + 1
	// RefusedOlder: something newer, or as new and of better standing, is kept.
	RefusedOlder
	// RefusedForgotten: the read began before this node forgot floors that might
	// have concerned it.
	RefusedForgotten
	// RefusedSize: larger than half a shard of the store; see Options.MaxBytes.
	RefusedSize
)

// String is the reason's name as a metric label.
func (r Refusal) String() string {
	switch r {
	case RefusedFloor:
		return "floor"
	case RefusedOlder:
		return "older"
	case RefusedForgotten:
		return "forgotten"
	case RefusedSize:
		return "size"
	}
	return "kept"
}
