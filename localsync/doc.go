// Package localsync is what a web node imports: an in-process cache that turns
// over when a row is committed, over Redis, over the application's own loader.
//
//	cache, err := localsync.Open(ctx, localsync.Options{Redis: rdb, Brokers: brokers})
//	shows, err := localsync.NewModule(cache, localsync.ModuleConfig[int64]{Name: "show"}, localsync.JSON[Show](), loadShows)
//	show, err := shows.Get(ctx, 42) // errors.Is(err, localsync.ErrNotFound)
//
// # What it promises
//
// The daemon overwrites Redis and then broadcasts an invalidation. Once a node
// has heard of version v of a key, no read of that key on that node gives
// anything older, unless it says so ([Info].Stale). When messages may be missing
// it knows within [Options].Silence and says so ([Info].Degraded). The promise is
// per key: two keys of one transaction may be seen one after the other.
//
// # How a read goes
//
//	local store ── fresh ──────────────────────────────► served, decoded already
//	     │                                               or from its bytes
//	     │  past Refresh ── served, renewed behind the reader
//	     │  newer heard of, records missed, bus silent and past MaxStale, absent
//	     ▼
//	Redis (one MGET) ── at or above the floor ─────────► kept, served
//	     │  missing, unusable, or behind (asked once more)
//	     ▼
//	lease ── held by another node: wait, then Redis again
//	     │  taken, waited long enough, or nothing that could be shared
//	     ▼
//	loader (batches) ── claims the aged watermark ─────► offered to Redis, kept, served
//	     │  nothing proves it: served with Stale, given to no other node, and kept
//	     │  for a second at most, where every key would be loaded by every reader
//	     ▼
//	failed: KeepLast serves the last value with Stale; Optional says ErrNotFound, Degraded
//
// # Why it holds
//
// Floors. Every invalidation raises its key's floor, resident or not, by maximum.
// A value is kept only at or above its floor, and the check and the write are one
// step under one lock; so it does not matter when a slow read began, in what order
// messages come, or how often.
//
// Aged watermarks. A loaded value has no version of its own. It claims the
// position that was known applied [Options].ReplicaLag before the load began, so
// it never claims a change that the replica it was read from did not have. Until
// there is such a position, loaded values are served with Stale; and a node that has
// not heard the bus for a moment offers none to Redis, which may have evicted what
// the node does not know of.
//
// Gaps. Records carry a dense sequence per producer and partition, heartbeats
// repeat its head, and a restarted daemon says what it goes on from. A hole puts the
// partition's entries in doubt with one store to memory; each is checked against Redis
// when it is next read. Nothing is flushed. What was kept before a partition's first
// record is checked likewise: whether one was lost in front of it nothing can tell.
//
// Silence. What was not heard for [Options].Silence may have changed: reads say
// Degraded, and what is older than MaxStale is checked. A daemon that has lost its
// source, works off a backlog or cannot write says so with every record, which counts
// as silence for as long. What Redis does not take it tells of all the same, and
// loaders answer for it until Redis does.
//
// Hints. Redis passes most changes on ahead of the bus. They raise floors like the
// bus does, and nothing depends on them ([Options].NoHints).
//
// Leases. Of all nodes that miss a key which nobody has, one loads it and tells
// the others when it is done; they then read Redis. Nothing but the number of
// loads depends on it: a node that waited for [ModuleConfig].LeaseWait, or was told
// that there is nothing to share, loads for itself.
//
// # What is in memory
//
// The values are bytes, with their versions and ages in a table beside them that
// has no pointers. They take [Options].MaxBytes at most and a quarter more than
// what is live; what replaced or expired is reclaimed a shard at a time. A module
// with [ModuleConfig].Objects keeps its popular values decoded too. An object is
// served only while the table's row is of the same bytes and would have them
// served, so that it is never older than they are. What depends on the hour is
// evaluated at each read: see [Timed].
//
// # What the daemon decides
//
// The daemon tells the settings of its modules over the control topic: ages, what
// to do on errors, max_stale. They are in force from the next read on and win over
// those of the code, unless [ModuleConfig].Pinned. A new generation of a module
// puts all its entries in doubt with one store; each is loaded again when it is
// next read. A module without a loader serves what Redis holds, as Stale, until the
// daemon has written it again.
//
// # What it costs when things are away
//
// Kafka: each entry that is read is checked against Redis once per MaxStale.
// Redis: what is known to have changed goes to the loader, the rest is served as
// Stale up to its hard age. Loader: see OnError. At Open: see [Options].Away.
//
// # What it costs when the topic changes
//
// Keys move when the topic gets another number of partitions, which a node notices
// within a third of [Options].Silence. It puts all entries in doubt and follows the
// new partitions; from then on a fault of one concerns all keys.
//
// # Goroutines
//
// One per partition applies the bus (ended by Close); it takes shard locks and
// waits for nothing else. One hears hints. One counts the topic's partitions. One per
// group of missing keys reads Redis and the loader, on its own deadline; Close waits
// for it.
// From the first wait for another node's load on, one hears of their ends (Redis's
// own subscription, ended by Close). Lock order: a module's table of flights alone;
// the table of waits alone; a store's shard (its turn, its lock).
// None is held around I/O or while calling a loader; hooks of the Observer run
// without locks.
//
// # Testing
//
// Package localsynctest plays Redis, Kafka, the daemon and the clock in an
// application's own tests.
package localsync
