package feed

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// Record is one record of a topic.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte
	Time      time.Time
}

// event is what one record says. Without changes it is passed over.
type event struct {
	changes []rowtide.Change
	// file and pos are the place in the source's log; file is empty when the
	// record has none.
	file string
	pos  uint64
	// snapshot rows were read from the table, not from the log.
	snapshot bool
	// group is the id of the transaction, empty when the record does not tell;
	// last closes it.
	group string
	last  bool
	at    time.Time
	// passed says why there are no changes.
	passed string
}

// Why records are passed over; the label of a metric.
const (
	passedDDL       = "ddl"
	passedTable     = "table"
	passedTombstone = "tombstone"
	passedOther     = "other"
)

func pass(why string) (*event, error) { return &event{passed: why}, nil }

// emptied says that a table lost all its rows by a statement.
func emptied(schema, name string, e *event) (*event, error) {
	e.changes = []rowtide.Change{{Table: &rowtide.Table{Schema: schema, Name: name}, Op: rowtide.OpTruncate}}
	return e, nil
}

// decoder reads records of one format. It is for one goroutine.
type decoder interface {
	decode(key, value []byte) (*event, error)
}

func newDecoder(cfg Config, watched map[string]bool) (decoder, error) {
	types, err := cfg.declared()
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(cfg.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("source.time_zone: %w", err)
	}
	switch cfg.Format {
	case FormatCanal:
		return &canal{shapes{}, watched, types, reading{zone, latin1}}, nil
	case FormatMaxwell:
		return &maxwell{shapes{}, watched, types, reading{zone, fromBase64}}, nil
	case FormatDebezium:
		return &debezium{shapes: shapes{}, watched: watched, schemas: map[string]*schema{}}, nil
	}
	return nil, fmt.Errorf("source.format %q is not known", cfg.Format)
}

// change makes one row's change. For an update, before is the whole image or
// only what differs, by partial.
func change(t *rowtide.Table, op rowtide.Op, row []field, before []field, partial bool, conv converter) (rowtide.Change, error) {
	c := rowtide.Change{Table: t, Op: op}
	full, err := image(t, row, conv)
	if err != nil {
		return c, err
	}
	switch op {
	case rowtide.OpInsert:
		c.After = full
	case rowtide.OpDelete:
		c.Before = full
	case rowtide.OpUpdate:
		c.After = full
		if !partial {
			c.Before, err = image(t, before, conv)
			return c, err
		}
		c.Before = append([]rowtide.Value(nil), full...)
		err = overlay(t, c.Before, before, conv)
	default:
		err = fmt.Errorf("a row was %s", op)
	}
	return c, err
}

// unmarshal says which part of a record does not fit.
func unmarshal(raw []byte, out any, what string) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
