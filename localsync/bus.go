package localsync

import "context"

// Bus delivers every record of every partition of the invalidation topic to
// this node, whatever other nodes read. [Open] makes one over Kafka unless
// Options.Bus is set.
type Bus interface {
	// Open pins the present end of every partition and returns how many there
	// are. When it returns, every record produced from then on will be delivered
	// by Run: the cache fills its store only after that, so that no change can
	// fall between (race R11). It may be called again after an error, or after
	// Close when Control failed, see Options.Away.
	Open(ctx context.Context) (partitions int32, err error)
	// Run delivers to sink until ctx ends; it then returns nil. Calls for one
	// partition never overlap and are in the order of the log. It keeps trying
	// while the broker is away; an error means that it gave up for good.
	Run(ctx context.Context, sink Sink) error
	// Close frees what Open took, if anything. Nothing runs then.
	Close() error
}

// ControlBus is a Bus that also carries what the daemon says of its modules:
// settings and generations (rowtide.ModuleControl).
type ControlBus interface {
	Bus
	// Control calls apply with every control record that is there now, in order,
	// and then returns; Run delivers those that follow. It is called after Open and
	// before Run. A bus on which the daemon says nothing of modules returns nil.
	Control(ctx context.Context, apply func(key string, value []byte)) error
}

// Sink takes what a Bus delivers. Its methods do not block on anything but
// short locks, and never on Redis or a loader (race R23).
type Sink interface {
	// Record applies one record's bytes.
	Record(partition int32, record []byte)
	// Lost says that records of the partition were skipped: delivery goes on,
	// but what was kept before this call can no longer be trusted unseen.
	Lost(partition int32, cause error)
	// Partitions says that the topic now has n partitions, of which those that are
	// new are pinned. A bus whose topic never changes need not call it.
	Partitions(n int32)
}
