package aggregator

import (
	"context"
	"time"

	"github.com/rowtide/rowtide"
)

// Sink takes the entries of a flush to the outside. Both methods block until
// the other side has acknowledged, repeat by themselves what can be mended by
// repeating, and are harmless to repeat.
type Sink interface {
	// Overwrite stores every entry that is not older than what is there. It
	// returns nil only when Redis holds all of them, or something newer.
	Overwrite(ctx context.Context, entries []rowtide.Entry) error
	// Broadcast announces the entries, also those that Overwrite found superseded:
	// a crash between the two must not lose an invalidation. It returns nil only
	// when Kafka has acknowledged all. Every transaction up to watermark is in
	// Redis by then.
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
