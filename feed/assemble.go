package feed

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/rowtide/rowtide"
)

// Bounds of one transaction in memory; a larger one goes on in parts.
const (
	maxGroupChanges = 10_000
	maxGroupBytes   = 8 << 20
)

// offsetBits is the room of an offset in a version: 20 bits of file number and
// 32 of position.
const offsetBits = 52

// ErrPositionsRestart means the positions in the records start anew: another
// server took over, or its log was reset. Stop; in the same epoch the new
// changes would look old.
var ErrPositionsRestart = errors.New("the source's positions start anew")

// assembler turns the records of one partition into transactions. It is for one
// goroutine.
type assembler struct {
	dec   decoder
	epoch uint32
	// ordered: an offset orders all records that touch a row.
	ordered bool
	obs     Observer
	emit    func(context.Context, *rowtide.Tx) error

	name  string // of the partition
	mark  Mark   // just past what was emitted or is in tx
	group string
	tx    *rowtide.Tx // open; nil between transactions
}

// record takes the next record. An error leaves everything before it emitted.
func (a *assembler) record(ctx context.Context, r *Record) error {
	e, err := a.dec.decode(r.Key, r.Value)
	var v rowtide.Version
	if err == nil && len(e.changes) > 0 {
		v, err = a.version(e, r.Offset)
	}
	if err != nil {
		err = fmt.Errorf("topic %s partition %d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		return errors.Join(a.flush(ctx), err)
	}
	if e.passed != "" {
		a.obs.PassedOver(e.passed)
	}
	if len(e.changes) == 0 {
		a.mark.Next = r.Offset + 1
		if a.tx != nil {
			return nil
		}
		a.tx = &rowtide.Tx{Version: a.mark.Newest, CommittedAt: r.Time, Bytes: len(r.Value)}
		return a.flush(ctx)
	}
	if a.tx != nil && (e.group == "" || e.group != a.group) {
		if err := a.flush(ctx); err != nil {
			return err
		}
	}
	if a.tx == nil {
		a.tx, a.group = &rowtide.Tx{CommittedAt: e.at}, e.group
	}
	a.tx.Version = max(a.tx.Version, v)
	a.tx.Changes = append(a.tx.Changes, e.changes...)
	a.tx.Bytes += len(r.Key) + len(r.Value)
	a.mark.Next = r.Offset + 1
	if e.file != "" || a.mark.Newest.File() == 0 {
		a.mark.Newest, a.mark.At = max(a.mark.Newest, v), max(a.mark.At, e.at.Unix())
	}
	if e.group == "" || e.last || len(a.tx.Changes) >= maxGroupChanges || a.tx.Bytes >= maxGroupBytes {
		return a.flush(ctx)
	}
	return nil
}

// flush emits the open transaction, if there is one.
func (a *assembler) flush(ctx context.Context) error {
	if a.tx == nil {
		return nil
	}
	tx := a.tx
	a.tx = nil
	tx.Position = rowtide.Position{File: a.name, Pos: uint64(a.mark.Next), GTID: a.mark.token(a.name)} //nolint:gosec // offsets are not negative
	return a.emit(ctx, tx)
}

// version is made from the record alone: from its position, or else from its
// offset.
func (a *assembler) version(e *event, offset int64) (rowtide.Version, error) {
	if e.file != "" {
		file, err := rowtide.FileNumber(e.file)
		if err != nil {
			return 0, err
		}
		v, err := rowtide.NewVersion(a.epoch, file, e.pos)
		if err != nil {
			return 0, err
		}
		// A connector that starts again repeats old records with their old times; a
		// lower position with a newer time is another log.
		if !e.snapshot && v < a.mark.Newest && e.at.Unix() > a.mark.At+1 {
			return 0, fmt.Errorf("%w: %s after %s; see docs/feeds.md, then set source.epoch to %d",
				ErrPositionsRestart, v, a.mark.Newest, a.epoch+1)
		}
		return v, nil
	}
	n := uint64(offset) + 1 //nolint:gosec // offsets are not negative
	switch {
	case e.snapshot:
		// Below every position, so that a change that was streamed wins.
		return rowtide.Version(uint64(a.epoch)<<offsetBits | min(n, math.MaxUint32)), nil
	case a.mark.Newest.File() != 0 && a.mark.Newest > rowtide.Version(uint64(a.epoch)<<offsetBits|n):
		return 0, errors.New("has no source position, but records before it have; let the capture write it (Maxwell: output_binlog_position)")
	case !a.ordered:
		return 0, errors.New("has no source position, and the topics have several partitions; let the capture write it " +
			"(Maxwell: output_binlog_position), or set source.keyed if all records of a row are in one partition")
	case n>>offsetBits != 0:
		return 0, fmt.Errorf("offset is above %d bits; raise source.epoch", offsetBits)
	}
	return rowtide.Version(uint64(a.epoch)<<offsetBits | n), nil
}
