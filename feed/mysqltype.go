package feed

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// columnType is a MySQL type as SHOW COLUMNS spells it.
type columnType struct {
	base     string
	args     string // between the parentheses
	unsigned bool
}

func parseType(s string) columnType {
	s = strings.TrimSpace(s)
	t := columnType{base: s}
	if end := strings.IndexAny(s, " ("); end >= 0 {
		t.base = s[:end]
		rest := s[end:]
		if open, shut := strings.IndexByte(rest, '('), strings.LastIndexByte(rest, ')'); open >= 0 && shut > open {
			t.args = rest[open+1 : shut]
			rest = rest[shut+1:]
		}
		t.unsigned = strings.Contains(strings.ToLower(rest), "unsigned")
	}
	t.base = strings.ToLower(t.base)
	return t
}

// kind is a class of types whose values are read alike.
type kind uint8

const (
	kindInt kind = iota + 1
	kindBit
	kindFloat
	kindDouble
	kindDecimal
	kindText
	kindDateTime
	kindTimestamp
	kindTime
	kindEnum
	kindSet
	kindJSON
	kindBytes
)

var kinds = map[string]kind{
	"tinyint": kindInt, "smallint": kindInt, "mediumint": kindInt, "int": kindInt, "integer": kindInt, "bigint": kindInt,
	"bool": kindInt, "boolean": kindInt, "year": kindInt, "bit": kindBit,
	"float": kindFloat, "double": kindDouble, "real": kindDouble, "decimal": kindDecimal, "numeric": kindDecimal,
	"char": kindText, "varchar": kindText, "tinytext": kindText, "text": kindText, "mediumtext": kindText, "longtext": kindText,
	"date": kindText, "datetime": kindDateTime, "timestamp": kindTimestamp, "time": kindTime,
	"enum": kindEnum, "set": kindSet, "json": kindJSON,
	"binary": kindBytes, "varbinary": kindBytes, "tinyblob": kindBytes, "blob": kindBytes, "mediumblob": kindBytes, "longblob": kindBytes,
	"geometry": kindBytes, "point": kindBytes, "linestring": kindBytes, "polygon": kindBytes, "multipoint": kindBytes,
	"multilinestring": kindBytes, "multipolygon": kindBytes, "geometrycollection": kindBytes, "geomcollection": kindBytes, "vector": kindBytes,
}

func (t columnType) known() bool { return kinds[t.base] != 0 }

// reading is how a format writes what MySQL's own text leaves open.
type reading struct {
	zone  *time.Location // of TIMESTAMP
	bytes func(string) ([]byte, error)
}

// value reads the text of a column that is not NULL.
func (r reading) value(t columnType, s string) (rowtide.Value, error) {
	switch kinds[t.base] {
	case kindInt:
		if t.unsigned {
			return strconv.ParseUint(s, 10, 64)
		}
		return strconv.ParseInt(s, 10, 64)
	case kindBit:
		return bit(s)
	case kindFloat:
		f, err := strconv.ParseFloat(s, 32)
		return float32(f), err
	case kindDouble:
		return strconv.ParseFloat(s, 64)
	case kindDecimal:
		return decimalText(s, t.args)
	case kindText:
		return s, nil
	case kindDateTime:
		return dateTime(s, time.UTC), nil
	case kindTimestamp:
		return dateTime(s, r.zone), nil
	case kindTime:
		return trimZeroFraction(s), nil
	case kindEnum:
		return enumName(s, members(t.args))
	case kindSet:
		return setNames(s, members(t.args))
	case kindJSON:
		if !json.Valid([]byte(s)) {
			return nil, errors.New("is no JSON document")
		}
		return rowtide.JSON(s), nil
	case kindBytes:
		b, err := r.bytes(s)
		if n, _ := strconv.Atoi(t.args); err == nil && t.base == "binary" && len(b) < n && n <= 255 {
			b = append(b, make([]byte, n-len(b))...) // the log cuts off zero bytes
		}
		return b, err
	}
	return nil, fmt.Errorf("type %q is not known; declare one in source.types", t.base)
}

func bit(s string) (rowtide.Value, error) {
	switch s {
	case "true":
		return uint64(1), nil
	case "false":
		return uint64(0), nil
	}
	return strconv.ParseUint(s, 10, 64)
}

var decimalForm = regexp.MustCompile(`^[+-]?\d{1,65}(\.\d{0,30})?([eE][+-]?\d{1,2})?$`)

// decimalText is a decimal with the scale of its type, if that is told.
func decimalText(s, args string) (rowtide.Value, error) {
	if !decimalForm.MatchString(s) {
		return nil, fmt.Errorf("%.80q is no decimal", s)
	}
	precision, scaleText, _ := strings.Cut(args, ",")
	scale, err := strconv.Atoi(strings.TrimSpace(scaleText))
	switch {
	case err == nil && scale >= 0 && scale <= 30:
	case precision != "": // decimal(10) has no digits behind the point
		scale = 0
	case strings.ContainsAny(s, "eE"):
		return nil, fmt.Errorf("decimal %q needs the scale of its type", s)
	default:
		return s, nil
	}
	if _, frac, _ := strings.Cut(s, "."); len(frac) == scale && !strings.ContainsAny(s, "eE+") && !strings.HasSuffix(s, ".") {
		return s, nil
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, fmt.Errorf("%.80q is no decimal", s)
	}
	return r.FloatString(scale), nil
}

// dateTime gives a date of the calendar as a time in UTC, any other as text.
func dateTime(s string, zone *time.Location) rowtide.Value {
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t.UTC()
		}
	}
	return trimZeroFraction(s)
}

func trimZeroFraction(s string) string {
	if strings.Contains(s, ".") {
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// members are the names between the parentheses of an ENUM or SET.
func members(args string) []string {
	var out []string
	for len(args) > 0 && args[0] == '\'' {
		var name strings.Builder
		i := 1
		for ; i < len(args); i++ {
			if args[i] == '\'' {
				if i+1 == len(args) || args[i+1] != '\'' {
					break
				}
				i++ // '' stands for one quote
			}
			name.WriteByte(args[i])
		}
		out = append(out, name.String())
		args = strings.TrimLeft(args[min(i+1, len(args)):], ", ")
	}
	return out
}

// enumName takes a name, or the index that Canal writes in many versions.
func enumName(s string, names []string) (rowtide.Value, error) {
	named := indexOf(names, s) >= 0
	n, err := strconv.ParseUint(s, 10, 16)
	indexed := err == nil && int(n) <= len(names) && len(names) > 0
	switch {
	case named && indexed && (n == 0 || names[n-1] != s):
		return nil, fmt.Errorf("enum value %q may be a name or an index; declare the column in source.types, as text to take names", s)
	case named || s == "":
		return s, nil
	case indexed && n == 0:
		return "", nil
	case indexed:
		return names[n-1], nil
	case err != nil && len(names) == 0:
		return s, nil
	}
	return nil, fmt.Errorf("enum value %.80q is none of %q; declare the column's members in source.types", s, names)
}

// setNames takes comma-joined names, or the bits that Canal writes.
func setNames(s string, names []string) (rowtide.Value, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return s, nil //nolint:nilerr // not a number, so names
	}
	if indexOf(names, s) >= 0 {
		return nil, fmt.Errorf("set value %q may be a name or bits; declare the column in source.types, as text to take names", s)
	}
	var picked []string
	for i, name := range names {
		if i < 64 && n&(1<<i) != 0 {
			picked = append(picked, name)
			n &^= 1 << i
		}
	}
	if n != 0 {
		return nil, fmt.Errorf("set value %q has bits beyond %q; declare the column's members in source.types", s, names)
	}
	return strings.Join(picked, ","), nil
}

func indexOf(names []string, s string) int {
	for i, n := range names {
		if n == s {
			return i
		}
	}
	return -1
}

// latin1 is how Canal writes bytes: one character each.
func latin1(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xFF {
			return nil, fmt.Errorf("character %U in a binary column", r)
		}
		out = append(out, byte(r))
	}
	return out, nil
}

func fromBase64(s string) ([]byte, error) { return base64.StdEncoding.DecodeString(s) }
