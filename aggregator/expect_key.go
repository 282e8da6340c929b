package aggregator

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// columnValue turns a key's text back into a value that a column of the type can
// be compared with, so that its index is used; ok is false when no value of the
// column has that text.
func columnValue(dataType, text string) (v any, ok bool) {
	switch dataType {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit":
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, strconv.FormatInt(n, 10) == text
		}
		n, err := strconv.ParseUint(text, 10, 64)
		return n, err == nil && strconv.FormatUint(n, 10) == text
	case "float":
		f, err := strconv.ParseFloat(text, 32)
		return f, err == nil
	case "double":
		f, err := strconv.ParseFloat(text, 64)
		return f, err == nil
	case "decimal":
		_, err := strconv.ParseFloat(text, 64)
		return text, err == nil
	case "datetime", "timestamp":
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return t.Format("2006-01-02 15:04:05.999999"), true
		}
		return text, numeric(text) // dates that are not in the calendar
	case "date", "time":
		return text, numeric(text)
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
		b, err := base64.StdEncoding.DecodeString(text)
		return b, err == nil
	}
	return text, true
}

// numeric reports whether the text is made of what dates and times are made of:
// a server in strict mode refuses to compare them with anything else.
func numeric(text string) bool { return text != "" && strings.Trim(text, "0123456789-:. ") == "" }
