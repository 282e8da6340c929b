package feed

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// canal reads Canal's flat messages: all values are text, and mysqlType tells
// what it means. A message holds rows of one table.
type canal struct {
	shapes  shapes
	watched map[string]bool
	types   map[string]columnType
	reading reading
}

type canalMessage struct {
	Database  string            `json:"database"`
	Table     string            `json:"table"`
	Type      string            `json:"type"`
	IsDDL     bool              `json:"isDdl"`
	ES        int64             `json:"es"`
	TS        int64             `json:"ts"`
	PKNames   []string          `json:"pkNames"`
	MySQLType map[string]string `json:"mysqlType"`
	Data      []json.RawMessage `json:"data"`
	Old       []json.RawMessage `json:"old"`
}

func (c *canal) decode(_, value []byte) (*event, error) {
	if isNull(value) {
		return pass(passedTombstone)
	}
	var m canalMessage
	if err := unmarshal(value, &m, "flat message"); err != nil {
		return nil, err
	}
	var op rowtide.Op
	switch strings.ToUpper(m.Type) {
	case "INSERT":
		op = rowtide.OpInsert
	case "UPDATE":
		op = rowtide.OpUpdate
	case "DELETE":
		op = rowtide.OpDelete
	case "":
		return nil, fmt.Errorf("has no type: is this topic filled with canal.mq.flatMessage = true?")
	}
	ms := m.ES
	if ms == 0 {
		ms = m.TS
	}
	e := &event{at: time.UnixMilli(ms).UTC()}
	watched := c.watched[m.Database+"."+m.Table]
	switch {
	case watched && (m.Type == "TRUNCATE" || m.Type == "ERASE"): // ERASE is DROP TABLE
		return emptied(m.Database, m.Table, e)
	case m.IsDDL || op == 0: // CREATE, ALTER, QUERY, RENAME, CINDEX, DINDEX …
		return pass(passedDDL)
	case !watched:
		return pass(passedTable)
	case len(m.Data) == 0:
		return nil, fmt.Errorf("table %s.%s: %s without data", m.Database, m.Table, m.Type)
	case op == rowtide.OpUpdate && m.Old != nil && len(m.Old) != len(m.Data):
		return nil, fmt.Errorf("table %s.%s: %d rows and %d old ones", m.Database, m.Table, len(m.Data), len(m.Old))
	}
	for i, raw := range m.Data {
		row, err := object(raw)
		if err != nil {
			return nil, fmt.Errorf("data[%d]: %w", i, err)
		}
		var old []field // none: no column changed
		if op == rowtide.OpUpdate && m.Old != nil {
			if old, err = object(m.Old[i]); err != nil {
				return nil, fmt.Errorf("old[%d]: %w", i, err)
			}
		}
		t := c.shapes.table(m.Database, m.Table, names(row), m.PKNames)
		ch, err := change(t, op, row, old, true, c.converter(&m))
		if err != nil {
			return nil, err
		}
		e.changes = append(e.changes, ch)
	}
	return e, nil
}

func (c *canal) converter(m *canalMessage) converter {
	return func(column string, raw json.RawMessage) (rowtide.Value, error) {
		t, ok := c.types[m.Database+"."+m.Table+"."+column]
		if !ok {
			t = parseType(m.MySQLType[column])
		}
		s, err := text(raw)
		if err != nil {
			return nil, err
		}
		return c.reading.value(t, s)
	}
}
