package rowtide

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Value is a column's value in a [Change], wherever it was read (the log or a
// SELECT). It has one of these Go types and no other:
//
//	nil              NULL
//	int8 … int64     signed integers, YEAR
//	uint8 … uint64   unsigned integers, BIT
//	float32, float64 FLOAT, DOUBLE
//	string           text in UTF-8; DECIMAL (exact, scale kept), DATE, TIME, ENUM by
//	                 name, SET as comma-joined names, and dates that no calendar has
//	                 (0000-00-00) in the server's own spelling
//	time.Time        DATETIME and TIMESTAMP, in UTC
//	[]byte           BINARY, VARBINARY, BLOB, GEOMETRY (SRID + WKB), VECTOR
//	JSON             JSON, the document's text
type Value = any

// JSON is the text of a JSON document.
type JSON []byte

// AppendValue appends v as JSON: integers and floats as numbers, text and
// decimals as strings, times as RFC 3339 in UTC with as many fraction digits as
// are needed, bytes as base64, JSON as itself (compacted). A type that is not in
// the list of [Value] is an error.
func AppendValue(dst []byte, v Value) ([]byte, error) {
	switch x := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		return AppendJSONString(dst, x), nil
	case time.Time:
		dst = append(dst, '"')
		dst = x.UTC().AppendFormat(dst, time.RFC3339Nano)
		return append(dst, '"'), nil
	case []byte:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, x)
		return append(dst, '"'), nil
	case JSON:
		var buf bytes.Buffer
		if err := json.Compact(&buf, x); err != nil {
			return dst, fmt.Errorf("render JSON column: %w", err)
		}
		return append(dst, buf.Bytes()...), nil
	}
	return appendNumber(dst, v)
}

func appendNumber(dst []byte, v Value) ([]byte, error) {
	if n, ok := asInt(v); ok {
		return strconv.AppendInt(dst, n, 10), nil
	}
	if n, ok := asUint(v); ok {
		return strconv.AppendUint(dst, n, 10), nil
	}
	switch x := v.(type) {
	case float32:
		return appendFloat(dst, float64(x), 32)
	case float64:
		return appendFloat(dst, x, 64)
	}
	return dst, fmt.Errorf("render value: type %T is not a column value", v)
}

func appendFloat(dst []byte, f float64, bits int) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, fmt.Errorf("render value: %v has no JSON form", f)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, bits), nil
}

// AppendText appends v the way a key template shows it: like [AppendValue], but
// text and times bare, without quotes.
func AppendText(dst []byte, v Value) ([]byte, error) {
	switch x := v.(type) {
	case string:
		return append(dst, x...), nil
	case time.Time:
		return x.UTC().AppendFormat(dst, time.RFC3339Nano), nil
	case []byte:
		return base64.StdEncoding.AppendEncode(dst, x), nil
	}
	return AppendValue(dst, v)
}

func asInt(v Value) (int64, bool) {
	switch x := v.(type) {
	case int64:
		return x, true
	case int32:
		return int64(x), true
	case int16:
		return int64(x), true
	case int8:
		return int64(x), true
	}
	return 0, false
}

func asUint(v Value) (uint64, bool) {
	switch x := v.(type) {
	case uint64:
		return x, true
	case uint32:
		return uint64(x), true
	case uint16:
		return uint64(x), true
	case uint8:
		return uint64(x), true
	}
	return 0, false
}

// AppendJSONString appends s as a JSON string. Text without quotes, backslashes
// and control characters (nearly all of it) is copied as it is; the rest goes
// through encoding/json, without its HTML escapes.
func AppendJSONString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			return appendEscaped(dst, s)
		}
	}
	if !utf8.ValidString(s) {
		return appendEscaped(dst, s)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		// A string always encodes: invalid UTF-8 becomes U+FFFD.
		panic("encode string: " + err.Error())
	}
	return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}
