package changes

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// The record's first two bytes.
const (
	Magic  = 0xC7
	Format = 1
)

const recordHeader = 20

// Record is what one Kafka record holds for its partition.
type Record struct {
	// Watermark: all changes of the partition up to it are in this record or
	// before it; zero is unknown.
	Watermark rowtide.Version
	// SentAt is the reader's clock.
	SentAt time.Time
	Parts  []Part
}

// Part is what a transaction means to one partition, or, of a large one, as much
// as there was room for.
type Part struct {
	Version     rowtide.Version
	CommittedAt time.Time
	// Position is the place just past the transaction, with its own GTID.
	Position rowtide.Position
	Changes  []rowtide.Routed
	// Bytes is the size of the changes in the record; set by decoding.
	Bytes int
}

// AppendRecord appends the record's bytes to dst. A value whose type is not in
// the list of rowtide.Value is an error.
func (r *Record) AppendRecord(dst []byte) ([]byte, error) {
	b := newBuilder()
	for i := range r.Parts {
		p := &r.Parts[i]
		for j := range p.Changes {
			if err := b.add(&p.Changes[j]); err != nil {
				return dst, err
			}
		}
		b.end(p.Version, p.CommittedAt, p.Position)
	}
	return b.append(dst, r.Watermark, r.SentAt), nil
}

// builder makes a record change by change.
type builder struct {
	tables  map[*rowtide.Table]uint64
	modules map[module]uint64
	// The record's lists, encoded, and the changes of the part that is open.
	tableList, moduleList, parts, open []byte
	count, changes                     int
}

type module struct {
	name    string
	version uint16
}

func newBuilder() *builder {
	return &builder{tables: map[*rowtide.Table]uint64{}, modules: map[module]uint64{}}
}

// size is about how long the record will be.
func (b *builder) size() int {
	return recordHeader + len(b.tableList) + len(b.moduleList) + len(b.parts) + len(b.open)
}

func (b *builder) empty() bool { return b.count == 0 && b.changes == 0 }

// add appends a change to the open part. After an error the builder is as before.
func (b *builder) add(r *rowtide.Routed) error {
	c := &r.Change
	open := b.open
	open = append(open, byte(c.Op))
	open = binary.AppendUvarint(open, b.table(c.Table))
	open = binary.AppendUvarint(open, b.module(module{r.Key.Module, r.Key.Version}))
	open = appendText(open, r.Key.ID)
	for _, image := range [][]rowtide.Value{c.Before, c.After} {
		if image == nil {
			open = append(open, 0)
			continue
		}
		open = binary.AppendUvarint(open, uint64(len(image))+1)
		for i, v := range image {
			var err error
			if open, err = appendValue(open, v); err != nil {
				return fmt.Errorf("encode change of %s: column %s: %w", c.Table, c.Table.Columns[i], err)
			}
		}
	}
	b.open = open
	b.changes++
	return nil
}

func (b *builder) table(t *rowtide.Table) uint64 {
	n, ok := b.tables[t]
	if !ok {
		n = uint64(len(b.tables))
		b.tables[t] = n
		b.tableList = appendText(appendText(b.tableList, t.Schema), t.Name)
		b.tableList = binary.AppendUvarint(b.tableList, uint64(len(t.Columns)))
		for _, c := range t.Columns {
			b.tableList = appendText(b.tableList, c)
		}
		b.tableList = binary.AppendUvarint(b.tableList, uint64(len(t.PrimaryKey)))
		for _, i := range t.PrimaryKey {
			b.tableList = binary.AppendUvarint(b.tableList, uint64(i)) //nolint:gosec // a column's place
		}
	}
	return n
}

func (b *builder) module(m module) uint64 {
	n, ok := b.modules[m]
	if !ok {
		n = uint64(len(b.modules))
		b.modules[m] = n
		b.moduleList = binary.AppendUvarint(appendText(b.moduleList, m.name), uint64(m.version))
	}
	return n
}

// end closes the open part.
func (b *builder) end(v rowtide.Version, committed time.Time, pos rowtide.Position) {
	b.parts = binary.BigEndian.AppendUint64(b.parts, uint64(v))
	b.parts = binary.BigEndian.AppendUint64(b.parts, micros(committed))
	b.parts = binary.AppendUvarint(appendText(b.parts, pos.File), pos.Pos)
	b.parts = appendText(b.parts, pos.GTID)
	b.parts = binary.AppendUvarint(b.parts, uint64(b.changes)) //nolint:gosec // a count
	b.parts = append(b.parts, b.open...)
	b.count++
	b.open, b.changes = b.open[:0], 0
}

func (b *builder) append(dst []byte, watermark rowtide.Version, sent time.Time) []byte {
	dst = append(dst, Magic, Format, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(watermark))
	dst = binary.BigEndian.AppendUint64(dst, micros(sent))
	dst = append(binary.AppendUvarint(dst, uint64(len(b.tables))), b.tableList...)
	dst = append(binary.AppendUvarint(dst, uint64(len(b.modules))), b.moduleList...)
	return append(binary.AppendUvarint(dst, uint64(b.count)), b.parts...) //nolint:gosec // a count
}

func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMicro()) //nolint:gosec // the same 64 bits
}

func fromMicros(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(n)).UTC() //nolint:gosec // the same 64 bits
}

// Decoder reads records. A shape that it has seen gets the same *rowtide.Table
// again, since its address keys plans. It is safe for concurrent use.
type Decoder struct {
	mu     sync.Mutex
	shapes map[string]*rowtide.Table
}

// NewDecoder makes a decoder that has seen nothing.
func NewDecoder() *Decoder { return &Decoder{shapes: map[string]*rowtide.Table{}} }

// Decode reads a record. Its values may alias b. The errors are
// rowtide.ErrNewerFormat and rowtide.ErrCorrupt.
func (d *Decoder) Decode(b []byte) (Record, error) {
	if len(b) < recordHeader || b[0] != Magic {
		return Record{}, fmt.Errorf("decode change record of %d bytes: %w", len(b), rowtide.ErrCorrupt)
	}
	if b[1] != Format {
		return Record{}, fmt.Errorf("decode change record of format %d: %w", b[1], rowtide.ErrNewerFormat)
	}
	s := newScanner(b)
	s.take(4)
	r := Record{Watermark: rowtide.Version(s.uint64()), SentAt: fromMicros(s.uint64())}
	tables := make([]*rowtide.Table, s.count(4))
	for i := range tables {
		tables[i] = d.table(s)
	}
	modules := make([]module, s.count(2))
	for i := range modules {
		modules[i] = module{s.string(), uint16(s.uvarint(16))} //nolint:gosec // the number of bits is checked
	}
	if n := s.count(20); n > 0 {
		r.Parts = make([]Part, n)
	}
	for i := range r.Parts {
		r.Parts[i].decode(s, tables, modules)
	}
	if s.bad || len(s.b) > 0 {
		return Record{}, fmt.Errorf("decode change record of %d bytes: %w", len(b), rowtide.ErrCorrupt)
	}
	return r, nil
}

func (p *Part) decode(s *scanner, tables []*rowtide.Table, modules []module) {
	p.Version, p.CommittedAt = rowtide.Version(s.uint64()), fromMicros(s.uint64())
	p.Position = rowtide.Position{File: s.string(), Pos: s.uvarint(64), GTID: s.string()}
	n := s.count(6)
	before := len(s.b)
	if n > 0 {
		p.Changes = make([]rowtide.Routed, n)
	}
	for i := range p.Changes {
		op, table, mod := rowtide.Op(s.byte()), s.uvarint(32), s.uvarint(32)
		if op < rowtide.OpInsert || op > rowtide.OpTruncate || table >= uint64(len(tables)) || mod >= uint64(len(modules)) {
			s.bad = true
			return
		}
		t, m := tables[table], modules[mod]
		r := &p.Changes[i]
		r.Key = rowtide.Key{Module: m.name, Version: m.version, ID: s.string()}
		r.Change = rowtide.Change{Table: t, Op: op, Before: image(s, t), After: image(s, t), Module: m.name}
		if s.bad {
			return
		}
	}
	p.Bytes = before - len(s.b)
}

func image(s *scanner, t *rowtide.Table) []rowtide.Value {
	n := s.uvarint(32)
	if n == 0 {
		return nil
	}
	if s.bad = s.bad || n-1 != uint64(len(t.Columns)); s.bad {
		return nil
	}
	out := make([]rowtide.Value, len(t.Columns))
	for i := range out {
		out[i] = s.value()
	}
	return out
}

func (d *Decoder) table(s *scanner) *rowtide.Table {
	from := s.b
	t := &rowtide.Table{Schema: s.string(), Name: s.string()}
	t.Columns = make([]string, s.count(1))
	for i := range t.Columns {
		t.Columns[i] = s.string()
	}
	if n := s.count(1); n > 0 {
		t.PrimaryKey = make([]int, n)
	}
	for i := range t.PrimaryKey {
		k := s.uvarint(32)
		if k >= uint64(len(t.Columns)) {
			s.bad = true
		}
		t.PrimaryKey[i] = int(k) //nolint:gosec // a place in the columns
	}
	if s.bad {
		return t
	}
	return d.intern(string(from[:len(from)-len(s.b)]), t)
}

// intern returns the table that was first seen with these bytes.
func (d *Decoder) intern(shape string, t *rowtide.Table) *rowtide.Table {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.shapes[shape]; ok {
		return known
	}
	// The shape outlives the record, whose text it must not hold on to.
	t.Schema, t.Name = strings.Clone(t.Schema), strings.Clone(t.Name)
	for i, c := range t.Columns {
		t.Columns[i] = strings.Clone(c)
	}
	d.shapes[shape] = t
	return t
}
