package binlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rowtide/rowtide"
)

// errNoKey: a table cannot be read in chunks.
var errNoKey = errors.New("it has no primary key and no unique key whose columns are all NOT NULL; add one, such as ALTER TABLE … ADD COLUMN … AUTO_INCREMENT PRIMARY KEY")

// keyColumn says how the server is to compare a column of the key with a value
// that was written down as text.
type keyColumn struct {
	name string
	// text is the expression that gives the value as text without loss, column the
	// one that sorts as the key does, place the text turned back.
	text, column, place string
}

// fillTable is a table as a backfill reads it: all columns, in the order of a key.
type fillTable struct {
	shape *rowtide.Table
	index string // the key's name
	key   []keyColumn
}

// describeFill reads columns and key from the server.
func describeFill(ctx context.Context, db queryer, table string) (*fillTable, error) {
	schema, name, _ := strings.Cut(table, ".")
	t := &fillTable{shape: &rowtide.Table{Schema: schema, Name: name}}
	types := map[string]string{}
	err := eachRow(ctx, db, "SELECT COLUMN_NAME AS name, COLUMN_TYPE AS type FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=? AND TABLE_NAME=? ORDER BY ORDINAL_POSITION",
		func(col map[string]string) error {
			t.shape.Columns = append(t.shape.Columns, col["name"])
			types[col["name"]] = strings.ToLower(col["type"])
			return nil
		}, schema, name)
	if err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", table, err)
	}
	if len(types) == 0 {
		return nil, &fillError{fmt.Errorf("table %s does not exist, or may not be read", table)}
	}
	var columns []string
	if t.index, columns, err = fillKey(ctx, db, t.from()); err != nil {
		return nil, fmt.Errorf("table %s: %w", table, err)
	}
	for _, c := range columns {
		k, err := newKeyColumn(c, types[c])
		if err != nil {
			return nil, &fillError{fmt.Errorf("table %s: key column %s: %w", table, c, err)}
		}
		t.key = append(t.key, k)
		t.shape.PrimaryKey = append(t.shape.PrimaryKey, t.shape.Column(c))
	}
	return t, nil
}

// fillError is one that repeating cannot mend.
type fillError struct{ err error }

func (e *fillError) Error() string { return e.err.Error() }
func (e *fillError) Unwrap() error { return e.err }

// fillKey chooses the primary key or, without one, the unique key with the fewest
// columns.
func fillKey(ctx context.Context, db queryer, from string) (index string, columns []string, err error) {
	keys := map[string][]string{}
	unfit := map[string]bool{}
	err = eachRow(ctx, db, "SHOW INDEX FROM "+from, func(col map[string]string) error {
		name := col["Key_name"]
		keys[name] = append(keys[name], col["Column_name"])
		// A part of a column, an expression or NULL does not tell rows apart; a key
		// that the optimizer may not use cannot be walked along.
		if col["Non_unique"] != "0" || col["Null"] == "YES" || col["Sub_part"] != "" || col["Column_name"] == "" || col["Visible"] == "NO" || col["Ignored"] == "YES" {
			unfit[name] = true
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("read keys: %w", err)
	}
	for name, cols := range keys {
		switch {
		case unfit[name]:
			continue
		case name == "PRIMARY":
			return name, cols, nil
		case index == "" || len(cols) < len(columns) || len(cols) == len(columns) && name < index:
			index, columns = name, cols
		}
	}
	if index == "" {
		return "", nil, &fillError{errNoKey}
	}
	return index, columns, nil
}

var precision = regexp.MustCompile(`\((\d+),(\d+)\)`)

// numeral turns a text back into a number. The inner cast keeps MySQL from
// taking the parameter for a number itself: a signed one, which saturates.
func numeral(typ string) string { return "CAST(CAST(? AS CHAR) AS " + typ + ")" }

func newKeyColumn(name, typ string) (keyColumn, error) {
	q := quoteName(name)
	base := typ[:len(typ)-len(strings.TrimLeft(typ, "abcdefghijklmnopqrstuvwxyz0123456789"))]
	k := keyColumn{name: name, text: "CAST(" + q + " AS CHAR)", column: q, place: "?"}
	switch base {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year":
		k.place = numeral("SIGNED")
		if strings.Contains(typ, "unsigned") {
			k.place = numeral("UNSIGNED")
		}
	case "bit":
		k.text, k.place = "CAST("+q+"+0 AS CHAR)", numeral("UNSIGNED")
	case "enum", "set": // they sort by number and compare by name
		k.text, k.column, k.place = "CAST("+q+"+0 AS CHAR)", "("+q+"+0)", numeral("UNSIGNED")
	case "decimal":
		// Without the cast the two are compared as floating point numbers.
		k.place = numeral("DECIMAL" + precision.FindString(typ))
	case "float", "double":
		k.text, k.place = "CAST("+q+"+0e0 AS CHAR)", "(?+0e0)"
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext":
		k.text = q // the column's own collation decides in comparisons
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
		k.text, k.place = "HEX("+q+")", "UNHEX(?)"
	case "date", "datetime", "timestamp", "time":
	default:
		return k, fmt.Errorf("type %s cannot be compared with the log's form of it; a backfill needs another key", typ)
	}
	return k, nil
}

func (t *fillTable) from() string { return quoteName(t.shape.Schema) + "." + quoteName(t.shape.Name) }

func (t *fillTable) keyNames() []string {
	out := make([]string, len(t.key))
	for i, k := range t.key {
		out[i] = k.name
	}
	return out
}

// same reports whether two descriptions are of one shape, so that what was
// compiled for one goes on being used for the other.
func (t *fillTable) same(o *fillTable) bool {
	return t.index == o.index && slices.Equal(t.shape.Columns, o.shape.Columns) && slices.Equal(t.key, o.key)
}

// list writes an expression of each key column.
func (t *fillTable) list(expr func(keyColumn) string) string {
	parts := make([]string, len(t.key))
	for i, k := range t.key {
		parts[i] = expr(k)
	}
	return strings.Join(parts, ", ")
}

func (t *fillTable) texts() string { return t.list(func(k keyColumn) string { return k.text }) }

func (t *fillTable) order(direction string) string {
	return " ORDER BY " + t.list(func(k keyColumn) string { return quoteName(k.name) + direction })
}

// forced keeps the optimizer on the key: the order is its own, and no sort is
// needed.
func (t *fillTable) forced() string { return t.from() + " FORCE INDEX (" + quoteName(t.index) + ")" }

// bound is a condition on the place in the key's order: op is > or <, last what
// it is for the last column, and at the place as text. The server compares, since
// only it knows its collations. A row constructor would say the same, but MySQL
// reads the whole index for it.
func (t *fillTable) bound(op, last string, at []string) (string, []any) {
	if len(at) == 0 {
		return "TRUE", nil
	}
	var args []any
	var or []string
	for i := range t.key {
		var and []string
		for j := range i {
			and = append(and, t.key[j].column+" = "+t.key[j].place)
			args = append(args, at[j])
		}
		o := op
		if i == len(t.key)-1 {
			o = last
		}
		and = append(and, t.key[i].column+" "+o+" "+t.key[i].place)
		args = append(args, at[i])
		or = append(or, "("+strings.Join(and, " AND ")+")")
	}
	// The first column alone is what a range of the index can be made of.
	cond := t.key[0].column + " " + op + "= " + t.key[0].place + " AND (" + strings.Join(or, " OR ") + ")"
	return cond, append([]any{at[0]}, args...)
}

// between is the condition for rows past after, up to and with to.
func (t *fillTable) between(after, to []string) (string, []any) {
	low, args := t.bound(">", ">", after)
	high, more := t.bound("<", "<=", to)
	return "(" + low + ") AND (" + high + ")", append(args, more...)
}

// cursor is the place of a backfill, as it is kept between chunks.
type cursor struct {
	// Key names the columns, so that a key that was changed meanwhile is noticed.
	Key []string `json:"key"`
	// After is the last row read; empty at the beginning.
	After []string `json:"after,omitempty"`
	// End is the last row that the table had at the beginning: later ones are in
	// the log, and a table that grows must come to an end.
	End []string `json:"end"`
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		return err.Error() // texts always marshal
	}
	return string(b)
}

// parseCursor reads a cursor of this table; nil: the beginning.
func (t *fillTable) parseCursor(s string) (*cursor, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no cursor is the beginning
	}
	var c cursor
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return nil, &fillError{fmt.Errorf("table %s: cursor %.80q of the backfill: %w", t.shape, s, err)}
	}
	if err := t.fits(&c); err != nil {
		return nil, err
	}
	return &c, nil
}

func (t *fillTable) fits(c *cursor) error {
	if slices.Equal(c.Key, t.keyNames()) && len(c.End) == len(t.key) && (len(c.After) == 0 || len(c.After) == len(t.key)) {
		return nil
	}
	return &fillError{fmt.Errorf("table %s: its key was (%s) when the backfill began and is (%s) now: ask for the backfill again",
		t.shape, strings.Join(c.Key, ", "), strings.Join(t.keyNames(), ", "))}
}
