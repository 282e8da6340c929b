package rowtide

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"
)

// DeadLetter is a change that could not be applied and was set aside, with what
// is needed to understand it and to do it over.
type DeadLetter struct {
	// Position is the end of the transaction; its GTID is there where the source
	// has them.
	Position Position
	Version  Version
	Module   string
	// Table is schema.table.
	Table string
	// Op is what happened to the row; zero when even that could not be read.
	Op Op
	// Reason is the error that set the change aside.
	Reason string
	// Key is the id in the module, empty when it could not be worked out.
	Key string
	// Row is the row as JSON, nil when it could not be read or is too large.
	Row json.RawMessage
	// At is when the change was set aside, to the millisecond.
	At time.Time

	id string // as it was written; the row may have been left out since
}

// ID names the letter. It is made from where the change stands in the log and
// what it was to touch, so that a replay sets aside the same letter, not another.
func (l DeadLetter) ID() string {
	if l.id != "" {
		return l.id
	}
	h := fnv.New64a()
	for _, part := range []string{l.Module, l.Table, l.Op.String(), l.Key} {
		_, _ = h.Write([]byte(part)) // never fails
		_, _ = h.Write([]byte{0})
	}
	if l.Key == "" {
		_, _ = h.Write(l.Row) // several rows of one transaction may have no key
	}
	return fmt.Sprintf("%016x-%016x", uint64(l.Version), h.Sum64())
}

type letterJSON struct {
	Format   int             `json:"format"`
	ID       string          `json:"id"`
	Position Position        `json:"position"`
	Version  Version         `json:"version,string"`
	Module   string          `json:"module"`
	Table    string          `json:"table"`
	Op       string          `json:"op,omitempty"`
	Reason   string          `json:"reason"`
	Key      string          `json:"key,omitempty"`
	Row      json.RawMessage `json:"row,omitempty"`
	At       int64           `json:"at_ms"`
}

// WithoutRow is the same letter, also by its ID, without the row.
func (l DeadLetter) WithoutRow() DeadLetter {
	l.id, l.Row = l.ID(), nil
	return l
}

// AppendDeadLetter appends the letter as a JSON object to dst. A row that is not
// JSON is kept as a string.
func (l DeadLetter) AppendDeadLetter(dst []byte) []byte {
	j := letterJSON{
		Format: ControlFormat, ID: l.ID(), Position: l.Position, Version: l.Version, Module: l.Module, Table: l.Table,
		Reason: l.Reason, Key: l.Key, Row: l.Row, At: l.At.UnixMilli(),
	}
	if l.Op != 0 {
		j.Op = l.Op.String()
	}
	if len(j.Row) > 0 && !json.Valid(j.Row) {
		j.Row = AppendJSONString(nil, string(j.Row))
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // the row has just been checked, the rest always marshals
	}
	return append(dst, b...)
}

// DecodeDeadLetter reads what [DeadLetter.AppendDeadLetter] wrote. The errors are
// [ErrNewerFormat] and [ErrCorrupt].
func DecodeDeadLetter(b []byte) (DeadLetter, error) {
	var j letterJSON
	if err := decodeVersioned(b, &j, &j.Format); err != nil {
		return DeadLetter{}, fmt.Errorf("decode dead letter: %w", err)
	}
	l := DeadLetter{
		Position: j.Position, Version: j.Version, Module: j.Module, Table: j.Table,
		Reason: j.Reason, Key: j.Key, Row: j.Row, At: time.UnixMilli(j.At).UTC(), id: j.ID,
	}
	for op := OpInsert; op <= OpTruncate; op++ {
		if j.Op == op.String() {
			l.Op = op
		}
	}
	return l, nil
}
