package feed

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// connectField is a field of a Kafka Connect schema.
type connectField struct {
	Field      string            `json:"field"`
	Type       string            `json:"type"`
	Name       string            `json:"name"`
	Parameters map[string]string `json:"parameters"`
	Fields     []connectField    `json:"fields"`
}

// schema is what an envelope's schema says about the columns. A nil schema says
// nothing.
type schema struct{ columns map[string]connectField }

func parseSchema(raw []byte) (*schema, error) {
	var root connectField
	if err := unmarshal(raw, &root, "schema"); err != nil {
		return nil, err
	}
	s := &schema{map[string]connectField{}}
	for _, image := range root.Fields {
		if image.Field == "after" || image.Field == "before" {
			for _, c := range image.Fields {
				s.columns[c.Field] = c
			}
		}
	}
	return s, nil
}

func (s *schema) value(column string, raw json.RawMessage) (rowtide.Value, error) {
	if s == nil {
		if b, isBool := boolean(raw); isBool {
			return b, nil
		}
		return plain(raw)
	}
	f, ok := s.columns[column]
	if !ok {
		return nil, errors.New("is not in the record's schema")
	}
	return f.value(raw)
}

// boolean is how some converters show BIT(1) and TINYINT(1).
func boolean(raw json.RawMessage) (rowtide.Value, bool) {
	switch string(raw) {
	case "true":
		return uint64(1), true
	case "false":
		return uint64(0), true
	}
	return nil, false
}

// sourceType is the column's MySQL type, where the connector propagates it.
func (f connectField) sourceType() columnType {
	return columnType{
		base:     strings.ToLower(strings.Fields(f.Parameters["__debezium.source.column.type"] + " .")[0]),
		unsigned: strings.Contains(strings.ToUpper(f.Parameters["__debezium.source.column.type"]), "UNSIGNED"),
	}
}

// value reads a column that is not NULL by its semantic type, or else by its
// plain one.
func (f connectField) value(raw json.RawMessage) (rowtide.Value, error) {
	switch f.Name {
	case "io.debezium.time.Date", "org.apache.kafka.connect.data.Date":
		return integer(raw, func(n int64) (rowtide.Value, error) {
			return instant(time.Unix(0, 0).UTC().AddDate(0, 0, int(int32(n))), time.DateOnly) //nolint:gosec // Connect's int32
		})
	case "io.debezium.time.Timestamp", "org.apache.kafka.connect.data.Timestamp":
		return integer(raw, func(n int64) (rowtide.Value, error) { return instant(time.UnixMilli(n), "") })
	case "io.debezium.time.MicroTimestamp":
		return integer(raw, func(n int64) (rowtide.Value, error) { return instant(time.UnixMicro(n), "") })
	case "io.debezium.time.NanoTimestamp":
		return integer(raw, func(n int64) (rowtide.Value, error) { return instant(time.Unix(0, n), "") })
	case "io.debezium.time.Time", "org.apache.kafka.connect.data.Time":
		return integer(raw, func(n int64) (rowtide.Value, error) { return timeOfDay(n, 3), nil })
	case "io.debezium.time.MicroTime":
		return integer(raw, func(n int64) (rowtide.Value, error) { return timeOfDay(n, 6), nil })
	case "io.debezium.time.NanoTime":
		return integer(raw, func(n int64) (rowtide.Value, error) { return timeOfDay(n/1000, 6), nil })
	case "io.debezium.time.ZonedTimestamp":
		s, err := text(raw)
		if err != nil {
			return nil, err
		}
		t, err := time.Parse(time.RFC3339, s)
		return t.UTC(), err
	case "org.apache.kafka.connect.data.Decimal":
		return f.decimal(raw)
	case "io.debezium.data.Json":
		s, err := text(raw)
		if err == nil && !json.Valid([]byte(s)) {
			err = errors.New("is no JSON document")
		}
		return rowtide.JSON(s), err
	case "io.debezium.data.Bits":
		return bits(raw)
	case "io.debezium.data.geometry.Geometry", "io.debezium.data.geometry.Point":
		return geometry(raw)
	}
	return f.primitive(raw)
}

func (f connectField) primitive(raw json.RawMessage) (rowtide.Value, error) {
	switch f.Type {
	case "int8", "int16", "int32", "int64":
		return integer(raw, func(n int64) (rowtide.Value, error) {
			if f.sourceType().unsigned {
				return uint64(n), nil //nolint:gosec // a BIGINT UNSIGNED in "long" mode wraps, and so back
			}
			return n, nil
		})
	case "float", "float32":
		n, err := strconv.ParseFloat(string(raw), 32)
		return float32(n), err
	case "double", "float64":
		n, err := strconv.ParseFloat(string(raw), 64)
		if base := f.sourceType().base; err == nil && (base == "decimal" || base == "numeric") {
			if scale, err := strconv.Atoi(f.Parameters["__debezium.source.column.scale"]); err == nil && scale <= 30 {
				return strconv.FormatFloat(n, 'f', scale, 64), nil
			}
		}
		return n, err
	case "boolean":
		if b, ok := boolean(raw); ok {
			return b, nil
		}
		return nil, fmt.Errorf("%.80s is no boolean", raw)
	case "bytes":
		s, err := text(raw)
		if err != nil {
			return nil, err
		}
		return fromBase64(s)
	case "string":
		if raw[0] != '"' {
			return nil, fmt.Errorf("%.80s is no string", raw)
		}
		return text(raw)
	}
	return nil, fmt.Errorf("type %q (%s) is not known", f.Type, f.Name)
}

func integer(raw json.RawMessage, of func(int64) (rowtide.Value, error)) (rowtide.Value, error) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return nil, err
	}
	return of(n)
}

// instant is a time of the calendar that MySQL has; with a layout, its text.
func instant(t time.Time, layout string) (rowtide.Value, error) {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("year %d is none of MySQL's", y)
	}
	if layout != "" {
		return t.Format(layout), nil
	}
	return t, nil
}

// timeOfDay is a TIME, which may be negative and above 24 hours; digits is 3 for
// milliseconds, 6 for microseconds.
func timeOfDay(n int64, digits int) string {
	unit := int64(1000)
	if digits == 6 {
		unit = 1_000_000
	}
	sign := ""
	u := uint64(n) //nolint:gosec // made absolute next
	if n < 0 {
		sign, u = "-", -u
	}
	s := u / uint64(unit)
	return trimZeroFraction(fmt.Sprintf("%s%02d:%02d:%02d.%0*d", sign, s/3600, s/60%60, s%60, digits, u%uint64(unit)))
}

// maxDecimal is the bytes of 65 digits, MySQL's most, with some room.
const maxDecimal = 64

// decimal is Connect's: a big-endian two's complement, and the scale in the
// schema.
func (f connectField) decimal(raw json.RawMessage) (rowtide.Value, error) {
	s, err := text(raw)
	if err != nil {
		return nil, err
	}
	if raw[0] != '"' { // a converter with decimal.format=NUMERIC
		return decimalText(s, "65,"+f.Parameters["scale"])
	}
	b, err := fromBase64(s)
	if err != nil {
		return nil, fmt.Errorf("decimal: %w", err)
	}
	scale, err := strconv.Atoi(f.Parameters["scale"])
	if err != nil || scale < 0 || scale > 30 || len(b) == 0 || len(b) > maxDecimal {
		return nil, fmt.Errorf("decimal of %d bytes with scale %q is none of MySQL's", len(b), f.Parameters["scale"])
	}
	n := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b)))) //nolint:gosec // at most 8*maxDecimal
	}
	if t := f.sourceType(); t.unsigned && t.base == "bigint" && n.IsUint64() {
		return n.Uint64(), nil
	}
	digits := fmt.Sprintf("%0*s", scale+1, new(big.Int).Abs(n).String())
	digits = strings.ReplaceAll(digits, " ", "0")
	if scale > 0 {
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	if n.Sign() < 0 {
		digits = "-" + digits
	}
	return digits, nil
}

// bits is BIT(n), little endian.
func bits(raw json.RawMessage) (rowtide.Value, error) {
	s, err := text(raw)
	if err != nil {
		return nil, err
	}
	b, err := fromBase64(s)
	if err != nil || len(b) > 8 {
		return nil, errors.Join(fmt.Errorf("%d bytes are no BIT", len(b)), err)
	}
	var full [8]byte
	copy(full[:], b)
	return binary.LittleEndian.Uint64(full[:]), nil
}

// geometry is MySQL's own form: the SRID, little endian, and WKB.
func geometry(raw json.RawMessage) (rowtide.Value, error) {
	var g struct {
		WKB  []byte  `json:"wkb"`
		SRID *uint32 `json:"srid"`
	}
	if err := unmarshal(bytes.TrimSpace(raw), &g, "geometry"); err != nil {
		return nil, err
	}
	var srid uint32
	if g.SRID != nil {
		srid = *g.SRID
	}
	return append(binary.LittleEndian.AppendUint32(nil, srid), g.WKB...), nil
}
