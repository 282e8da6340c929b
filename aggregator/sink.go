package aggregator

import (
	"context"
	"time"

	"github.com/rowtide/rowtide"
)

// Outside is everything that an aggregator calls.
type Outside struct {
	Sink       Sink
	Checkpoint Checkpointer
	// DB may be nil when no module has a rebuild.
	DB Querier
	// DeadLetters may be nil when no module sets faults aside.
	DeadLetters DeadLetters
	// Generations may be nil when no watch has a look-up.
	Generations Generations
}

// Sink takes the entries of a flush to the outside. Both methods block until
// the other side has acknowledged, repeat by themselves what can be mended by
// repeating, and are harmless to repeat. Overwrite is called by several
// goroutines, never for the same key at once.
type Sink interface {
	// Overwrite stores every entry that is not older than what is there. It
	// returns nil only when Redis holds all of them, or something newer.
	Overwrite(ctx context.Context, entries []rowtide.Entry) error
	// Broadcast announces the entries, also those that Overwrite found superseded:
	// a crash between the two must not lose an invalidation. It returns nil only
	// when Kafka has acknowledged all. Every transaction up to watermark is in
	// Redis by then; zero when nothing is known yet.
	// oldest is the commit time of the flush's first transaction.
	Broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error
}

// Checkpointer remembers what has been acknowledged.
type Checkpointer interface {
	// Save records that everything up to last is done; gtids are the ids of the
	// transactions since the previous Save, in order.
	Save(ctx context.Context, last rowtide.Position, gtids []string) error
}

// Querier asks the source's database. Errors with a true Temporary method are
// tried again.
type Querier interface {
	// WaitFor blocks until the transaction can be read and returns true; or false
	// at once when the server cannot wait for it (gtid may be empty): then only a
	// locking SELECT sees it for certain.
	WaitFor(ctx context.Context, gtid string) (visible bool, err error)
	// Locking makes a SELECT wait for the rows that transactions still hold.
	Locking(query string) string
	// Query returns the columns' names and all rows.
	Query(ctx context.Context, query string, args ...any) ([]string, [][]rowtide.Value, error)
}

// Fault is a change, or a key's value, that cannot be applied.
type Fault struct {
	Module   string
	Key      string // the id, when it could be made
	Table    *rowtide.Table
	Position rowtide.Position // of the transaction, or of a later one of its flush
	Version  rowtide.Version
	Op       rowtide.Op      // zero when several changes may have led here
	Row      []rowtide.Value // aligned with Table.Columns; nil when none is at hand
	Err      error
}

// DeadLetters keeps what a module sets aside.
type DeadLetters interface {
	// SetAside returns nil once the faults cannot be lost any more.
	SetAside(ctx context.Context, faults []Fault) error
}

// Generations invalidates whole modules.
type Generations interface {
	// Raise gives the module a new generation, because of the change of version
	// since, and returns it once every node will hear of it.
	Raise(ctx context.Context, module string, since rowtide.Version) (uint32, error)
}
