package aggregator

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowtide/rowtide"
)

// template is a key template: literals and columns in turn.
type template struct {
	literals []string // one more than columns
	columns  []string
}

func parseTemplate(s string) (template, error) {
	var t template
	if s == "" {
		return t, errors.New(`is missing: give a template such as "{id}"`)
	}
	rest := s
	for {
		lit, after, found := strings.Cut(rest, "{")
		if strings.Contains(lit, "}") {
			return t, fmt.Errorf("template %q has a } without a {", s)
		}
		t.literals = append(t.literals, lit)
		if !found {
			break
		}
		col, after, found := strings.Cut(after, "}")
		if !found || col == "" || strings.ContainsAny(col, "{ ") {
			return t, fmt.Errorf("template %q: want a column's name between { and }", s)
		}
		t.columns = append(t.columns, col)
		rest = after
	}
	if len(t.columns) == 0 {
		return t, fmt.Errorf("template %q names no column, so all rows would share one key", s)
	}
	return t, nil
}

// single is the column's name if the template is that column and nothing else.
func (t template) single() string {
	if len(t.columns) == 1 && t.literals[0] == "" && t.literals[1] == "" {
		return t.columns[0]
	}
	return ""
}

// errNullKey means a key column is NULL: the row has no key.
var errNullKey = errors.New("key column is NULL")

// append renders the template over row; cols are the indexes of t.columns.
func (t template) append(dst []byte, row []rowtide.Value, cols []int) ([]byte, error) {
	for i, c := range cols {
		if row[c] == nil {
			return dst, errNullKey
		}
		dst = append(dst, t.literals[i]...)
		var err error
		if dst, err = rowtide.AppendText(dst, row[c]); err != nil {
			return dst, err
		}
	}
	return append(dst, t.literals[len(cols)]...), nil
}
