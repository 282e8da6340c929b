package changes

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/rowtide/rowtide"
)

// Tags of values; the package's comment is their contract.
const (
	tagNull = iota
	tagInt8
	tagInt16
	tagInt32
	tagInt64
	tagUint8
	tagUint16
	tagUint32
	tagUint64
	tagFloat32
	tagFloat64
	tagText
	tagTime
	tagBytes
	tagJSON
)

func appendValue(dst []byte, v rowtide.Value) ([]byte, error) {
	switch x := v.(type) {
	case nil:
		return append(dst, tagNull), nil
	case int8:
		return binary.AppendVarint(append(dst, tagInt8), int64(x)), nil
	case int16:
		return binary.AppendVarint(append(dst, tagInt16), int64(x)), nil
	case int32:
		return binary.AppendVarint(append(dst, tagInt32), int64(x)), nil
	case int64:
		return binary.AppendVarint(append(dst, tagInt64), x), nil
	case uint8:
		return binary.AppendUvarint(append(dst, tagUint8), uint64(x)), nil
	case uint16:
		return binary.AppendUvarint(append(dst, tagUint16), uint64(x)), nil
	case uint32:
		return binary.AppendUvarint(append(dst, tagUint32), uint64(x)), nil
	case uint64:
		return binary.AppendUvarint(append(dst, tagUint64), x), nil
	case float32:
		return binary.BigEndian.AppendUint32(append(dst, tagFloat32), math.Float32bits(x)), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(dst, tagFloat64), math.Float64bits(x)), nil
	case string:
		return appendText(append(dst, tagText), x), nil
	case time.Time:
		dst = binary.AppendVarint(append(dst, tagTime), x.Unix())
		return binary.AppendUvarint(dst, uint64(x.Nanosecond())), nil //nolint:gosec // 0 to 999,999,999
	case []byte:
		return appendBytes(append(dst, tagBytes), x), nil
	case rowtide.JSON:
		return appendBytes(append(dst, tagJSON), x), nil
	}
	return dst, fmt.Errorf("type %T is not a column value", v)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// scanner takes fields off a record. After a fault every field is empty; it is
// asked for once, at the end.
type scanner struct {
	b    []byte
	text string // the whole record, which texts are parts of
	bad  bool
}

func newScanner(b []byte) *scanner { return &scanner{b: b, text: string(b)} }

func (s *scanner) take(n uint64) []byte {
	if s.bad || n > uint64(len(s.b)) {
		s.bad = true
		return nil
	}
	out := s.b[:n:n]
	s.b = s.b[n:]
	return out
}

func (s *scanner) byte() byte {
	if b := s.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (s *scanner) uint32() uint32 {
	if b := s.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (s *scanner) uint64() uint64 {
	if b := s.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint takes a number of at most bits bits.
func (s *scanner) uvarint(bits int) uint64 {
	n, w := binary.Uvarint(s.b)
	if w <= 0 || n>>1>>(bits-1) != 0 {
		s.bad = true
		return 0
	}
	s.take(uint64(w))
	return n
}

func (s *scanner) varint(bits int) int64 {
	n, w := binary.Varint(s.b)
	if w <= 0 || n<<(64-bits)>>(64-bits) != n {
		s.bad = true
		return 0
	}
	s.take(uint64(w))
	return n
}

// count takes the length of a list whose elements have at least least bytes, so
// that a wrong number does not ask for the memory of a right one.
func (s *scanner) count(least int) int {
	n := s.uvarint(32)
	if n > uint64(len(s.b)/least) {
		s.bad = true
		return 0
	}
	return int(n) //nolint:gosec // at most the record's length
}

func (s *scanner) bytes() []byte { return s.take(s.uvarint(32)) }

// string is a part of the record's text: one copy for all of them.
func (s *scanner) string() string {
	n := len(s.bytes())
	end := len(s.text) - len(s.b)
	return s.text[end-n : end]
}

func (s *scanner) value() rowtide.Value {
	switch s.byte() {
	case tagNull:
		return nil
	case tagInt8:
		return int8(s.varint(8)) //nolint:gosec // the number of bits is checked
	case tagInt16:
		return int16(s.varint(16)) //nolint:gosec // the number of bits is checked
	case tagInt32:
		return int32(s.varint(32)) //nolint:gosec // the number of bits is checked
	case tagInt64:
		return s.varint(64)
	case tagUint8:
		return uint8(s.uvarint(8)) //nolint:gosec // the number of bits is checked
	case tagUint16:
		return uint16(s.uvarint(16)) //nolint:gosec // the number of bits is checked
	case tagUint32:
		return uint32(s.uvarint(32)) //nolint:gosec // the number of bits is checked
	case tagUint64:
		return s.uvarint(64)
	case tagFloat32:
		return math.Float32frombits(s.uint32())
	case tagFloat64:
		return math.Float64frombits(s.uint64())
	case tagText:
		return s.string()
	case tagTime:
		sec, nano := s.varint(64), s.uvarint(32)
		if nano >= uint64(time.Second) {
			s.bad = true
		}
		return time.Unix(sec, int64(nano)).UTC() //nolint:gosec // below a second
	case tagBytes:
		return s.bytes()
	case tagJSON:
		return rowtide.JSON(s.bytes())
	}
	s.bad = true
	return nil
}
