package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// maxSchemas bounds the compiled schemas of one partition: one per table and
// version of it.
const maxSchemas = 4096

// debezium reads the envelopes of Debezium's MySQL and MariaDB connectors, with
// or without their schema.
type debezium struct {
	shapes  shapes
	watched map[string]bool
	schemas map[string]*schema // by its text
}

type dbzEnvelope struct {
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
	Op     *string         `json:"op"`
	TSMs   int64           `json:"ts_ms"`
	Source *struct {
		DB    string `json:"db"`
		Table string `json:"table"`
		File  string `json:"file"`
		Pos   uint64 `json:"pos"`
		TSMs  int64  `json:"ts_ms"`
	} `json:"source"`
	Transaction *struct {
		ID string `json:"id"`
	} `json:"transaction"`
	// Of records that are no changes.
	DDL          *string         `json:"ddl"`
	Database     *string         `json:"databaseName"`
	TableChanges json.RawMessage `json:"tableChanges"`
	Status       *string         `json:"status"`
	EventCount   json.RawMessage `json:"event_count"`
}

func (d *debezium) decode(key, value []byte) (*event, error) {
	if isNull(value) {
		return pass(passedTombstone)
	}
	schemaText, payload, err := unwrap(value)
	if err != nil {
		return nil, err
	}
	if isNull(payload) {
		return pass(passedTombstone)
	}
	var env dbzEnvelope
	if err := unmarshal(payload, &env, "envelope"); err != nil {
		return nil, err
	}
	if env.Op == nil {
		return noChange(&env, payload)
	}
	if env.Source == nil {
		return nil, errors.New("envelope has no source block")
	}
	e := &event{file: env.Source.File, pos: env.Source.Pos, at: time.UnixMilli(env.Source.TSMs).UTC()}
	if env.Source.TSMs == 0 {
		e.at = time.UnixMilli(env.TSMs).UTC()
	}
	if env.Transaction != nil {
		e.group = env.Transaction.ID
	}
	var op rowtide.Op
	row, other := env.After, env.Before
	switch *env.Op {
	case "c":
		op = rowtide.OpInsert
	case "r":
		op, e.snapshot = rowtide.OpInsert, true
	case "u":
		op = rowtide.OpUpdate
	case "d":
		op, row, other = rowtide.OpDelete, env.Before, nil
	case "t":
		op = rowtide.OpTruncate
	case "m":
		return pass(passedOther)
	default:
		return nil, fmt.Errorf("op %q is none of Debezium's", *env.Op)
	}
	if !d.watched[env.Source.DB+"."+env.Source.Table] {
		return pass(passedTable)
	}
	if op == rowtide.OpTruncate {
		return emptied(env.Source.DB, env.Source.Table, e)
	}
	c, err := d.change(&env, op, key, schemaText, row, other)
	if err != nil {
		return nil, err
	}
	e.changes = []rowtide.Change{c}
	return e, nil
}

func (d *debezium) change(env *dbzEnvelope, op rowtide.Op, key, schemaText, row, other []byte) (rowtide.Change, error) {
	s, err := d.schema(schemaText)
	if err != nil {
		return rowtide.Change{}, err
	}
	fields, err := object(row)
	if err != nil {
		return rowtide.Change{}, fmt.Errorf("row image %w", err)
	}
	before, err := object(other)
	if err != nil {
		return rowtide.Change{}, fmt.Errorf("row image %w", err)
	}
	if fields == nil || op == rowtide.OpUpdate && before == nil {
		return rowtide.Change{}, fmt.Errorf("table %s.%s: op %s lacks a row image; run SET GLOBAL binlog_row_image=FULL, and do not filter the envelope",
			env.Source.DB, env.Source.Table, *env.Op)
	}
	t := d.shapes.table(env.Source.DB, env.Source.Table, names(fields), keyColumns(key))
	return change(t, op, fields, before, false, s.value)
}

// noChange tells the other records that the connector writes from what is
// foreign to this format.
func noChange(env *dbzEnvelope, payload []byte) (*event, error) {
	switch {
	case env.Source != nil && (env.DDL != nil || env.Database != nil || env.TableChanges != nil):
		return pass(passedDDL)
	case env.Status != nil && env.EventCount != nil: // the topic of transactions
		return pass(passedOther)
	}
	if fields, err := object(payload); err == nil && len(fields) == 1 && fields[0].name == "ts_ms" { // heartbeat
		return pass(passedOther)
	}
	return nil, errors.New("has no op: it is no Debezium envelope; take transforms that unwrap or flatten off the connector")
}

// unwrap parts the schema from the payload; without a schema all is payload.
func unwrap(value []byte) (schemaText, payload []byte, err error) {
	var w struct {
		Schema  json.RawMessage `json:"schema"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := unmarshal(value, &w, "record"); err != nil {
		return nil, nil, err
	}
	if w.Payload == nil {
		return nil, value, nil
	}
	return w.Schema, w.Payload, nil
}

// keyColumns are the columns of the record's key, which are those of the primary
// key; none when the key is of another form.
func keyColumns(key []byte) []string {
	if len(key) == 0 {
		return nil
	}
	_, payload, err := unwrap(key)
	if err != nil {
		return nil
	}
	fields, err := object(payload)
	if err != nil {
		return nil
	}
	return names(fields)
}

func (d *debezium) schema(raw []byte) (*schema, error) {
	if isNull(raw) {
		return nil, nil //nolint:nilnil // without a schema values are plain
	}
	if s, ok := d.schemas[string(raw)]; ok {
		return s, nil
	}
	s, err := parseSchema(raw)
	if err != nil {
		return nil, err
	}
	if len(d.schemas) >= maxSchemas {
		clear(d.schemas)
	}
	d.schemas[string(raw)] = s
	return s, nil
}
