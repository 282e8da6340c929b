package binlog

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/rowtide/rowtide"
)

// collationBinary is the collation by which the log tells bytes from text.
const collationBinary = 63

// fixer turns one column's value as go-mysql decodes it into the canonical form
// of rowtide.Value. A nil fixer keeps the value.
type fixer func(v any) (rowtide.Value, error)

// shape is a watched table as one table map describes it, with what has to be
// mended per column.
type shape struct {
	table *rowtide.Table
	fix   []fixer
	// dirty lists the columns whose fix is not nil.
	dirty []int
}

// newShape reads names and types from the event itself.
func newShape(m *replication.TableMapEvent, charsets Charsets) (*shape, error) {
	t := &rowtide.Table{Schema: string(m.Schema), Name: string(m.Table), Columns: m.ColumnNameString()}
	if len(t.Columns) != int(m.ColumnCount) {
		return nil, fmt.Errorf("table %s: the event names %d of %d columns: %w; run SET GLOBAL binlog_row_metadata=FULL and, "+
			"for older events, start after it", t, len(t.Columns), m.ColumnCount, rowtide.ErrSchemaChanged)
	}
	for _, i := range m.PrimaryKey {
		t.PrimaryKey = append(t.PrimaryKey, int(i))
	}
	s := &shape{table: t, fix: make([]fixer, len(t.Columns))}
	c := &columnMeta{
		m: m, unsigned: m.UnsignedMap(), collation: m.CollationMap(), members: m.EnumSetCollationMap(),
		enums: m.EnumStrValueMap(), sets: m.SetStrValueMap(), charsets: charsets,
	}
	for i := range s.fix {
		f, err := c.fixer(i)
		if err != nil {
			return nil, fmt.Errorf("table %s: column %s: %w", t, t.Columns[i], err)
		}
		if s.fix[i] = f; f != nil {
			s.dirty = append(s.dirty, i)
		}
	}
	return s, nil
}

// row mends one image in place.
func (s *shape) row(row []any) error {
	for _, i := range s.dirty {
		if row[i] == nil {
			continue
		}
		v, err := s.fix[i](row[i])
		if err != nil {
			return fmt.Errorf("table %s: column %s: %w", s.table, s.table.Columns[i], err)
		}
		row[i] = v
	}
	return nil
}

type columnMeta struct {
	m         *replication.TableMapEvent
	unsigned  map[int]bool
	collation map[int]uint64
	members   map[int]uint64 // collations of the names of ENUM and SET columns
	enums     map[int][]string
	sets      map[int][]string
	charsets  Charsets
}

func (c *columnMeta) fixer(i int) (fixer, error) {
	typ, size := c.realType(i)
	switch {
	case typ == mysql.MYSQL_TYPE_YEAR: // servers do not agree whether it is unsigned
		return year, nil
	case c.unsigned[i] && typ == mysql.MYSQL_TYPE_INT24:
		return unsigned24, nil
	case c.unsigned[i]:
		return unsigned, nil
	}
	switch typ {
	case mysql.MYSQL_TYPE_ENUM:
		names, err := c.names(i, c.enums[i])
		return enumName(names), err
	case mysql.MYSQL_TYPE_SET:
		names, err := c.names(i, c.sets[i])
		return setNames(names), err
	case mysql.MYSQL_TYPE_BIT:
		return bitsUnsigned, nil
	case mysql.MYSQL_TYPE_JSON:
		return jsonText, nil
	case mysql.MYSQL_TYPE_DATETIME, mysql.MYSQL_TYPE_DATETIME2, mysql.MYSQL_TYPE_TIMESTAMP, mysql.MYSQL_TYPE_TIMESTAMP2:
		return dateTime, nil
	case mysql.MYSQL_TYPE_TIME, mysql.MYSQL_TYPE_TIME2:
		return timeOfDay, nil
	case mysql.MYSQL_TYPE_STRING:
		if c.collation[i] == collationBinary {
			return paddedBytes(size), nil
		}
		return c.text(i)
	case mysql.MYSQL_TYPE_VARCHAR, mysql.MYSQL_TYPE_VAR_STRING,
		mysql.MYSQL_TYPE_BLOB, mysql.MYSQL_TYPE_TINY_BLOB, mysql.MYSQL_TYPE_MEDIUM_BLOB, mysql.MYSQL_TYPE_LONG_BLOB:
		if c.collation[i] == collationBinary {
			return rawBytes, nil
		}
		return c.text(i)
	}
	return nil, nil //nolint:nilnil // no fixer: go-mysql's value is canonical already
}

// realType unpacks CHAR, ENUM and SET from the string type's metadata, and gives
// the declared size of a fixed-length string.
func (c *columnMeta) realType(i int) (typ byte, size int) {
	typ, meta := c.m.ColumnType[i], c.m.ColumnMeta[i]
	if typ != mysql.MYSQL_TYPE_STRING || meta < 256 {
		return typ, int(meta)
	}
	// Sizes above 255 borrow two bits of the type byte, inverted.
	b0, b1 := byte(meta>>8), byte(meta)
	if b0&0x30 != 0x30 {
		return b0 | 0x30, int(b1) | int((b0&0x30)^0x30)<<4
	}
	return b0, int(b1)
}

func (c *columnMeta) text(i int) (fixer, error) {
	dec, err := c.charsets.decoder(c.collation[i])
	if err != nil {
		return nil, err
	}
	return func(v any) (rowtide.Value, error) {
		switch x := v.(type) {
		case string:
			if dec == nil {
				return x, nil
			}
			return dec.String(x)
		case []byte:
			if dec == nil {
				return string(x), nil
			}
			return dec.String(string(x))
		}
		return nil, unexpected(v)
	}, nil
}

// names converts the members of an ENUM or SET, which the event has in the
// column's character set, to UTF-8.
func (c *columnMeta) names(i int, raw []string) ([]string, error) {
	dec, err := c.charsets.decoder(c.members[i])
	if err != nil || dec == nil {
		return raw, err
	}
	out := make([]string, len(raw))
	for j, name := range raw {
		if out[j], err = dec.String(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func unexpected(v any) error {
	return fmt.Errorf("decoded as %T: %w", v, rowtide.ErrSchemaChanged)
}

// rawBytes copies, because the decoder's strings and slices may share the whole
// packet, and one kept value would pin it.
func rawBytes(v any) (rowtide.Value, error) {
	switch x := v.(type) {
	case string:
		return []byte(x), nil
	case []byte:
		return append(make([]byte, 0, len(x)), x...), nil
	}
	return nil, unexpected(v)
}

// paddedBytes restores the zero bytes that the log cuts off a BINARY(n), so that
// the value equals what a SELECT shows.
func paddedBytes(size int) fixer {
	return func(v any) (rowtide.Value, error) {
		s, ok := v.(string)
		if !ok {
			return nil, unexpected(v)
		}
		out := make([]byte, max(size, len(s)))
		copy(out, s)
		return out, nil
	}
}

// dateTime takes what the decoder leaves as text: dates that no calendar has, and
// some that one has but that are long past.
func dateTime(v any) (rowtide.Value, error) {
	if s, ok := v.(string); ok {
		return parseDateTime(s), nil
	}
	return v, nil
}

func timeOfDay(v any) (rowtide.Value, error) {
	s, ok := v.(string)
	if !ok {
		return nil, unexpected(v)
	}
	return trimZeroFraction(s), nil
}

// unsigned mends what was decoded without the column's sign, see
// assembler.tableMap; a value from a compressed transaction has it already.
func unsigned(v any) (rowtide.Value, error) {
	switch x := v.(type) {
	case int8:
		return uint8(x), nil
	case int16:
		return uint16(x), nil
	case int32:
		return uint32(x), nil
	case int64:
		return uint64(x), nil
	}
	return v, nil
}

// unsigned24 also takes off the sign that was drawn out over the fourth byte.
func unsigned24(v any) (rowtide.Value, error) {
	if x, ok := v.(int32); ok {
		return uint32(x) & 0xFFFFFF, nil
	}
	return v, nil
}

func bitsUnsigned(v any) (rowtide.Value, error) {
	n, ok := v.(int64)
	if !ok {
		return nil, unexpected(v)
	}
	return uint64(n), nil
}

func year(v any) (rowtide.Value, error) {
	n, ok := v.(int)
	if !ok {
		return nil, unexpected(v)
	}
	return int64(n), nil
}

func jsonText(v any) (rowtide.Value, error) {
	switch x := v.(type) {
	case string:
		return rowtide.JSON(x), nil
	case []byte:
		return rowtide.JSON(x), nil
	}
	return nil, fmt.Errorf("partial JSON update: %w; run SET GLOBAL binlog_row_value_options=''", ErrUnreadable)
}

// enumName maps the index, 1 and up; 0 is MySQL's mark for an invalid value,
// which a SELECT shows as ”.
func enumName(names []string) fixer {
	return func(v any) (rowtide.Value, error) {
		n, ok := v.(int64)
		if !ok || n < 0 || int(n) > len(names) {
			return nil, unexpected(v)
		}
		if n == 0 {
			return "", nil
		}
		return names[n-1], nil
	}
}

func setNames(names []string) fixer {
	return func(v any) (rowtide.Value, error) {
		n, ok := v.(int64)
		if !ok || bits.Len64(uint64(n)) > len(names) {
			return nil, unexpected(v)
		}
		var picked []string
		for i, name := range names {
			if n&(1<<i) != 0 {
				picked = append(picked, name)
			}
		}
		return strings.Join(picked, ","), nil
	}
}
