package rowtide

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Invalidation says that a key has a newer state in Redis.
type Invalidation struct {
	Key     Key
	Version Version
	// Empty is true when the new state is an EMPTY entry.
	Empty bool
	// Value is the encoded value itself, for modules with push; nil otherwise,
	// and the node reads Redis.
	Value []byte
}

// Batch is one Kafka record: the invalidations of one flush for one partition,
// or, without items, a heartbeat.
type Batch struct {
	// Producer identifies one run of one daemon in one partition, and says where
	// its sequence goes on from; see [NewProducer].
	Producer uint64
	// Sequence is dense within the producer and partition: its first record has
	// the number after the last that the run before gave out, 1 in a new topic. A
	// heartbeat does not use one up: it repeats the last one given out, so that a
	// loss at the tail is noticed too.
	Sequence uint64
	// Watermark: every transaction up to this version is in Redis and in records
	// up to this one.
	Watermark Version
	// SentAt is the daemon's clock when the record was made.
	SentAt time.Time
	// CommittedAt is the source's commit time of the oldest transaction in the
	// record, zero when unknown; for lag figures only.
	CommittedAt time.Time
	// Behind is how long ago what may not be announced yet can have been committed:
	// zero while the daemon keeps up with its source. It is told in tenths of a second,
	// rounded up, and at most [MaxBehind].
	Behind time.Duration
	Items  []Invalidation
}

// MaxBehind is what Behind of a [Batch] is for that much or more.
const MaxBehind = (1<<16 - 1) * behindUnit

const behindUnit = 100 * time.Millisecond

// producerBase masks the bits of a producer that hold its base.
const producerBase = 1<<40 - 1

// NewProducer joins the label of a run (its low 24 bits) and the sequence of the
// record that the run found at the partition's end. Two daemons that go on from
// the same record count on separately, each with its own label, and a reader can
// tell a run that goes on from what it heard last from one whose beginning, or
// whose predecessor's end, it missed.
func NewProducer(run uint32, base uint64) uint64 { return uint64(run)<<40 | base&producerBase }

// ProducerBase is the sequence that a producer made by [NewProducer] goes on
// from.
func ProducerBase(producer uint64) uint64 { return producer & producerBase }

// Heartbeat reports whether the batch carries no invalidations.
func (b *Batch) Heartbeat() bool { return len(b.Items) == 0 }

// The record, big endian:
//
//	 0  1  magic 0xB7
//	 1  1  format, 1
//	 2  2  behind, tenths of a second
//	 4  8  producer: run 3 bytes, base 5 bytes
//	12  8  sequence
//	20  8  watermark
//	28  8  sent at, microseconds since 1970
//	36  8  committed at, microseconds since 1970, 0 unknown
//	44  4  number of items
//	48  …  items: flags 1 (1 EMPTY, 2 value follows), module version 2, version 8,
//	       module (uvarint length, bytes), id (same), value (same, if flagged)
//
// The format byte says how to read the rest; a reader that meets a higher one
// must treat every entry of the partition as suspect.
const (
	BatchMagic  = 0xB7
	BatchFormat = 1

	batchHeader  = 48
	itemEmpty    = 1
	itemHasValue = 2
	minItemBytes = 13
)

// AppendBatch appends the record's bytes to dst.
func (b *Batch) AppendBatch(dst []byte) []byte {
	dst = append(dst, BatchMagic, BatchFormat)
	dst = binary.BigEndian.AppendUint16(dst, uint16((min(max(b.Behind, 0), MaxBehind)+behindUnit-1)/behindUnit)) //nolint:gosec // bounded
	dst = binary.BigEndian.AppendUint64(dst, b.Producer)
	dst = binary.BigEndian.AppendUint64(dst, b.Sequence)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Watermark))
	dst = binary.BigEndian.AppendUint64(dst, micros(b.SentAt))
	dst = binary.BigEndian.AppendUint64(dst, micros(b.CommittedAt))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b.Items)))
	for i := range b.Items {
		dst = b.Items[i].append(dst)
	}
	return dst
}

func (i *Invalidation) append(dst []byte) []byte {
	var flags byte
	if i.Empty {
		flags |= itemEmpty
	}
	if i.Value != nil {
		flags |= itemHasValue
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint16(dst, i.Key.Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(i.Version))
	dst = binary.AppendUvarint(dst, uint64(len(i.Key.Module)))
	dst = append(dst, i.Key.Module...)
	dst = binary.AppendUvarint(dst, uint64(len(i.Key.ID)))
	dst = append(dst, i.Key.ID...)
	if i.Value != nil {
		dst = binary.AppendUvarint(dst, uint64(len(i.Value)))
		dst = append(dst, i.Value...)
	}
	return dst
}

func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMicro())
}

func fromMicros(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(n)).UTC()
}

// DecodeBatch reads a record. Values alias b; names are copied. The errors are
// [ErrNewerFormat] and [ErrCorrupt].
func DecodeBatch(b []byte) (Batch, error) {
	if len(b) < batchHeader || b[0] != BatchMagic {
		return Batch{}, fmt.Errorf("decode record of %d bytes: %w", len(b), ErrCorrupt)
	}
	if b[1] != BatchFormat {
		return Batch{}, fmt.Errorf("decode record of format %d: %w", b[1], ErrNewerFormat)
	}
	out := Batch{
		Producer:    binary.BigEndian.Uint64(b[4:]),
		Sequence:    binary.BigEndian.Uint64(b[12:]),
		Watermark:   Version(binary.BigEndian.Uint64(b[20:])),
		SentAt:      fromMicros(binary.BigEndian.Uint64(b[28:])),
		CommittedAt: fromMicros(binary.BigEndian.Uint64(b[36:])),
		Behind:      time.Duration(binary.BigEndian.Uint16(b[2:])) * behindUnit,
	}
	n := int(binary.BigEndian.Uint32(b[44:]))
	rest := b[batchHeader:]
	if n > len(rest)/minItemBytes {
		return Batch{}, fmt.Errorf("decode record: %d items in %d bytes: %w", n, len(rest), ErrCorrupt)
	}
	if n > 0 {
		out.Items = make([]Invalidation, n)
	}
	for i := range out.Items {
		var ok bool
		if rest, ok = out.Items[i].decode(rest); !ok {
			return Batch{}, fmt.Errorf("decode record: item %d of %d is cut short: %w", i, n, ErrCorrupt)
		}
	}
	if len(rest) != 0 {
		return Batch{}, fmt.Errorf("decode record: %d bytes after the last item: %w", len(rest), ErrCorrupt)
	}
	return out, nil
}

func (i *Invalidation) decode(b []byte) (rest []byte, ok bool) {
	if len(b) < minItemBytes {
		return nil, false
	}
	flags := b[0]
	if flags&^(itemEmpty|itemHasValue) != 0 {
		return nil, false
	}
	i.Empty = flags&itemEmpty != 0
	i.Key.Version = binary.BigEndian.Uint16(b[1:])
	i.Version = Version(binary.BigEndian.Uint64(b[3:]))
	module, b, ok := cut(b[11:])
	if !ok {
		return nil, false
	}
	id, b, ok := cut(b)
	if !ok {
		return nil, false
	}
	i.Key.Module, i.Key.ID = string(module), string(id)
	if flags&itemHasValue != 0 {
		if i.Value, b, ok = cut(b); !ok {
			return nil, false
		}
	}
	return b, true
}

func cut(b []byte) (field, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	return b[w : w+int(n) : w+int(n)], b[w+int(n):], true
}
