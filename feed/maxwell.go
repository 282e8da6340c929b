package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// maxwell reads Maxwell's records, one row each. They tell no types: what is not
// declared is taken as JSON shows it.
type maxwell struct {
	shapes  shapes
	watched map[string]bool
	types   map[string]columnType
	reading reading
}

type maxwellRecord struct {
	Database   string          `json:"database"`
	Table      string          `json:"table"`
	Type       string          `json:"type"`
	TS         int64           `json:"ts"`
	XID        json.Number     `json:"xid"`
	Commit     bool            `json:"commit"`
	Position   string          `json:"position"`
	KeyColumns []string        `json:"primary_key_columns"`
	Data       json.RawMessage `json:"data"`
	Old        json.RawMessage `json:"old"`
}

func (m *maxwell) decode(_, value []byte) (*event, error) {
	if isNull(value) {
		return pass(passedTombstone)
	}
	var r maxwellRecord
	if err := unmarshal(value, &r, "record"); err != nil {
		return nil, err
	}
	var op rowtide.Op
	switch r.Type {
	case "insert", "bootstrap-insert":
		op = rowtide.OpInsert
	case "update":
		op = rowtide.OpUpdate
	case "delete":
		op = rowtide.OpDelete
	case "bootstrap-start", "bootstrap-complete":
		return pass(passedOther)
	default:
		if strings.HasPrefix(r.Type, "table-") || strings.HasPrefix(r.Type, "database-") {
			return pass(passedDDL)
		}
		return nil, fmt.Errorf("type %q is none of Maxwell's", r.Type)
	}
	if !m.watched[r.Database+"."+r.Table] {
		return pass(passedTable)
	}
	row, err := object(r.Data)
	if err != nil || row == nil {
		return nil, errors.Join(fmt.Errorf("table %s.%s: data is missing; Maxwell must not encrypt it", r.Database, r.Table), err)
	}
	old, err := object(r.Old)
	if err != nil {
		return nil, fmt.Errorf("old: %w", err)
	}
	e := &event{
		at: time.Unix(r.TS, 0).UTC(), group: r.XID.String(), last: r.Commit, snapshot: r.Type == "bootstrap-insert",
	}
	if r.Position != "" {
		p, err := rowtide.ParsePosition(r.Position)
		if err != nil {
			return nil, err
		}
		e.file, e.pos = p.File, p.Pos
	}
	t := m.shapes.table(r.Database, r.Table, names(row), r.KeyColumns)
	c, err := change(t, op, row, old, true, m.converter(t))
	e.changes = []rowtide.Change{c}
	return e, err
}

func (m *maxwell) converter(t *rowtide.Table) converter {
	return func(column string, raw json.RawMessage) (rowtide.Value, error) {
		typ, ok := m.types[t.Schema+"."+t.Name+"."+column]
		switch {
		case !ok:
			return plain(raw)
		case typ.base == "json":
			return m.reading.value(typ, string(raw))
		case typ.base == "set" && raw[0] == '[':
			var picked []string
			err := json.Unmarshal(raw, &picked)
			return strings.Join(picked, ","), err
		}
		s, err := text(raw)
		if err != nil {
			return nil, err
		}
		return m.reading.value(typ, s)
	}
}
