package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/rowtide/rowtide"
)

// field is one member of a JSON object, whose order is that of the columns.
type field struct {
	name string
	raw  json.RawMessage
}

var errNoObject = errors.New("is no JSON object")

// object reads an object's members in order; null has none.
func object(raw []byte) ([]field, error) {
	if isNull(raw) {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNoObject
	}
	out := []field{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		f := field{name: t.(string)} //nolint:forcetypeassert // a member's name, says the decoder
		if err := dec.Decode(&f.raw); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something behind its JSON object")
	}
	return out, nil
}

func names(fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

func isNull(raw []byte) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || string(raw) == "null"
}

// text is a JSON scalar's text: a string's content, anything else as it stands.
func text(raw json.RawMessage) (string, error) {
	if raw[0] != '"' {
		return string(raw), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// plain is the value of a column whose type nobody tells: a string is text, an
// integer an integer. Other numbers stay as they are written, since a decimal
// would lose digits as a float.
func plain(raw json.RawMessage) (rowtide.Value, error) {
	if isNull(raw) {
		return nil, nil //nolint:nilnil // NULL
	}
	if raw[0] == '"' {
		return text(raw)
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, nil
	}
	if n, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
		return n, nil
	}
	return rowtide.JSON(bytes.Clone(raw)), nil
}

// shapes interns tables: a *rowtide.Table stands for its shape.
type shapes map[string]*rowtide.Table

func (s shapes) table(schema, name string, columns, key []string) *rowtide.Table {
	id := strings.Join([]string{schema, name, strings.Join(columns, "\x00"), strings.Join(key, "\x00")}, "\x01")
	if t, ok := s[id]; ok {
		return t
	}
	t := &rowtide.Table{Schema: schema, Name: name, Columns: columns}
	for _, k := range key {
		if i := t.Column(k); i >= 0 {
			t.PrimaryKey = append(t.PrimaryKey, i)
		}
	}
	s[id] = t
	return t
}

// converter gives the value of a column.
type converter func(column string, raw json.RawMessage) (rowtide.Value, error)

// image converts a row that has exactly the columns of t.
func image(t *rowtide.Table, row []field, conv converter) ([]rowtide.Value, error) {
	if len(row) != len(t.Columns) {
		return nil, fmt.Errorf("table %s: the images of one row have %d and %d columns", t, len(t.Columns), len(row))
	}
	out := make([]rowtide.Value, len(row))
	return out, overlay(t, out, row, conv)
}

// overlay puts the columns of row over the image.
func overlay(t *rowtide.Table, image []rowtide.Value, row []field, conv converter) error {
	for _, f := range row {
		i := t.Column(f.name)
		if i < 0 {
			return fmt.Errorf("table %s: column %s is in one image only", t, f.name)
		}
		if isNull(f.raw) {
			image[i] = nil
			continue
		}
		v, err := conv(f.name, f.raw)
		if err != nil {
			return fmt.Errorf("table %s: column %s: %w", t, f.name, err)
		}
		image[i] = v
	}
	return nil
}
