package binlog

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/rowtide/rowtide"
)

// assembler folds a stream of events into whole transactions. A transaction
// that is cut short (the connection broke, a log was rotated away) is thrown
// away: the server sends it again from its start.
type assembler struct {
	epoch    uint32
	charsets Charsets
	watched  map[string]bool // "schema.table"
	emit     func(ctx context.Context, tx *rowtide.Tx) error
	opened   func(committed time.Time) // told of each transaction that begins

	file    string
	fileNo  uint32
	lastPos uint64
	shapes  map[uint64]*shape // by table id, valid within one log file
	tx      rowtide.Tx
	// group is true between a transaction's opening and its XID: a statement
	// inside it (CREATE TABLE … SELECT, a temporary table) does not end it.
	group bool
	gtid  string
	xid   string // of the XA group being read, "" outside one
	// prepared holds XA groups between PREPARE and COMMIT. While there are any,
	// the position that is handed out stays before the oldest one, so that a
	// restart reads their rows again.
	prepared map[string][]rowtide.Change
	lowWater rowtide.Position
	withheld []string // GTIDs since lowWater
	log      *slog.Logger
	// own are tables of ours, to be decoded like watched ones; nil: none.
	own map[string]bool
}

func newAssembler(epoch uint32, cs Charsets, watched map[string]bool, start rowtide.Position, emit func(context.Context, *rowtide.Tx) error) *assembler {
	return &assembler{
		epoch: epoch, charsets: cs, watched: watched, emit: emit, file: start.File, lastPos: start.Pos,
		opened: func(time.Time) {},
		shapes: map[uint64]*shape{}, prepared: map[string][]rowtide.Change{},
		lowWater: rowtide.Position{File: start.File, Pos: start.Pos}, log: slog.New(slog.DiscardHandler),
	}
}

// event takes the next event. It blocks as long as emit does.
func (a *assembler) event(ctx context.Context, h *replication.EventHeader, ev replication.Event) error {
	switch e := ev.(type) {
	case *replication.RotateEvent:
		return a.rotate(string(e.NextLogName), e.Position)
	case *replication.FormatDescriptionEvent:
		// A server start: table ids begin anew, and no transaction spans it.
		a.reset()
		clear(a.shapes)
	case *replication.GTIDEvent:
		gtid := ""
		if h.EventType != replication.ANONYMOUS_GTID_EVENT {
			gtid = mysqlGTID(e.SID, "", e.GNO)
		}
		a.begin(gtid, commitTime(e.ImmediateCommitTimestamp, h.Timestamp))
	case *replication.GtidTaggedLogEvent:
		a.begin(mysqlGTID(e.SID, e.Tag.String(), e.GNO), commitTime(e.ImmediateCommitTimestamp, h.Timestamp))
	case *replication.MariadbGTIDEvent:
		a.begin(mariadbGTID(&e.GTID), commitTime(0, h.Timestamp))
		a.group = !e.IsStandalone()
	case *replication.QueryEvent:
		return a.query(ctx, h, e)
	case *replication.TableMapEvent:
		return a.tableMap(e)
	case *replication.RowsEvent:
		return a.rows(h, e)
	case *replication.XIDEvent:
		return a.commit(ctx, h)
	case *replication.TransactionPayloadEvent:
		return a.payload(ctx, h, e)
	case *replication.GenericEvent:
		return a.generic(ctx, h, e.Data)
	}
	return nil
}

// generic handles the event types that go-mysql leaves undecoded.
func (a *assembler) generic(ctx context.Context, h *replication.EventHeader, data []byte) error {
	switch h.EventType {
	case replication.XA_PREPARE_LOG_EVENT:
		if len(data) > 0 && data[0] != 0 { // XA COMMIT … ONE PHASE
			return a.commit(ctx, h)
		}
		return a.xaPrepare(ctx, h)
	case replication.INCIDENT_EVENT:
		return fmt.Errorf("incident event at %s:%d (the server lost events): %w", a.file, h.LogPos, ErrUnreadable)
	}
	return nil
}

func (a *assembler) rotate(name string, pos uint64) error {
	a.reset()
	clear(a.shapes)
	n, err := rowtide.FileNumber(name)
	if err != nil {
		return fmt.Errorf("follow rotation: %w", err)
	}
	if len(a.prepared) == 0 {
		a.lowWater = rowtide.Position{File: name, Pos: pos}
	}
	a.file, a.fileNo, a.lastPos = name, n, pos
	return nil
}

func (a *assembler) reset() {
	a.group, a.gtid, a.xid = false, "", ""
	clear(a.tx.Changes) // let the rows of a large transaction go
	a.tx = rowtide.Tx{Changes: a.tx.Changes[:0]}
}

func (a *assembler) begin(gtid string, at time.Time) {
	a.reset()
	a.gtid = gtid
	a.tx.CommittedAt = at
	a.opened(at)
}

func commitTime(micros uint64, seconds uint32) time.Time {
	if micros != 0 {
		return time.UnixMicro(int64(micros)).UTC()
	}
	return time.Unix(int64(seconds), 0).UTC()
}

func mariadbGTID(g *mysql.MariadbGTID) string {
	b := make([]byte, 0, 48)
	b = append(strconv.AppendUint(b, uint64(g.DomainID), 10), '-')
	b = append(strconv.AppendUint(b, uint64(g.ServerID), 10), '-')
	return string(strconv.AppendUint(b, g.SequenceNumber, 10))
}

func mysqlGTID(sid []byte, tag string, gno int64) string {
	b := make([]byte, 36, 64)
	hex.Encode(b, sid[:4])
	b[8] = '-'
	hex.Encode(b[9:], sid[4:6])
	b[13] = '-'
	hex.Encode(b[14:], sid[6:8])
	b[18] = '-'
	hex.Encode(b[19:], sid[8:10])
	b[23] = '-'
	hex.Encode(b[24:], sid[10:16])
	if tag != "" {
		b = append(append(b, ':'), tag...)
	}
	b = append(b, ':')
	return string(strconv.AppendInt(b, gno, 10))
}

// query handles transaction control, XA control and DDL, which all arrive as
// statement text.
func (a *assembler) query(ctx context.Context, h *replication.EventHeader, e *replication.QueryEvent) error {
	q := statementOf(e.Query)
	switch verb := firstWord(q); verb {
	case "BEGIN":
		a.group = true
		return nil
	case "COMMIT": // engines without transactions
		return a.commit(ctx, h)
	case "ROLLBACK":
		if len(bytes.Fields(q)) > 1 { // ROLLBACK TO SAVEPOINT
			return nil
		}
		a.tx.Changes = a.tx.Changes[:0]
		return a.commit(ctx, h)
	case "SAVEPOINT", "RELEASE":
		return nil
	case "XA":
		return a.xa(ctx, h, q)
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH":
		if a.elsewhere(string(e.Schema), q) {
			return nil
		}
		return fmt.Errorf("statement at %s:%d (%.60q): %w; a session set binlog_format to STATEMENT or MIXED", a.file, h.LogPos, q, ErrUnreadable)
	}
	// Anything else is DDL. Table ids change with it, so the known shapes need no
	// parsing to stay right. It commits by itself, unless the server wrote it as
	// the head of a group: MySQL marks an atomic CREATE TABLE … SELECT so.
	if a.group = a.group || bytes.HasSuffix(q, []byte("START TRANSACTION")); a.group {
		return nil
	}
	a.tx.Changes = append(a.tx.Changes[:0], a.lostRows(string(e.Schema), q, h)...)
	return a.commit(ctx, h)
}

// statementOf takes off MariaDB's SET STATEMENT … FOR, which may stand before
// any statement.
func statementOf(q []byte) []byte {
	words := bytes.Fields(q[:min(len(q), 64)])
	if len(words) < 2 || !bytes.EqualFold(words[0], []byte("SET")) || !bytes.EqualFold(words[1], []byte("STATEMENT")) {
		return q
	}
	if at := bytes.Index(bytes.ToUpper(q), []byte(" FOR ")); at >= 0 {
		return q[at+len(" FOR "):]
	}
	return q
}

// firstWord is the statement's first word in upper case, past white space and
// comments.
func firstWord(q []byte) string {
	for {
		q = bytes.TrimLeft(q, " \t\r\n(")
		switch {
		case bytes.HasPrefix(q, []byte("/*!")):
			q = bytes.TrimLeft(q[3:], "0123456789")
		case bytes.HasPrefix(q, []byte("/*M!")): // MariaDB only
			q = bytes.TrimLeft(q[4:], "0123456789")
		case bytes.HasPrefix(q, []byte("/*")):
			_, rest, ok := bytes.Cut(q, []byte("*/"))
			if !ok {
				return ""
			}
			q = rest
		case bytes.HasPrefix(q, []byte("#")), bytes.HasPrefix(q, []byte("-- ")):
			_, q, _ = bytes.Cut(q, []byte("\n"))
		default:
			end := bytes.IndexFunc(q, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') })
			if end < 0 {
				end = len(q)
			}
			return strings.ToUpper(string(q[:end]))
		}
	}
}

func (a *assembler) tableMap(e *replication.TableMapEvent) error {
	if s, known := a.shapes[e.TableID]; known && (s == nil || s.table.Name == string(e.Table)) {
		e.SignednessBitmap = nil
		return nil
	}
	if !a.wanted(e) {
		a.shapes[e.TableID] = nil
		return nil
	}
	s, err := newShape(e, a.charsets)
	if err != nil {
		return err
	}
	a.shapes[e.TableID] = s
	// The library makes a map of the signs for every image; the shape knows them
	// and mends the values (a twentieth of the work on small transactions).
	e.SignednessBitmap = nil
	return nil
}

func (a *assembler) rows(h *replication.EventHeader, e *replication.RowsEvent) error {
	a.tx.Bytes += int(h.EventSize)
	s, known := a.shapes[e.TableID]
	if !known {
		return fmt.Errorf("rows of table id %d at %s:%d without a table map: %w", e.TableID, a.file, h.LogPos, rowtide.ErrSchemaChanged)
	}
	if s == nil {
		return nil
	}
	for i, skipped := range e.SkippedColumns {
		if len(skipped) > 0 {
			return fmt.Errorf("row %d of table %s at %s:%d lacks %d columns: %w; run SET GLOBAL binlog_row_image=FULL",
				i, s.table, a.file, h.LogPos, len(skipped), ErrUnreadable)
		}
	}
	for _, row := range e.Rows {
		if err := s.row(row); err != nil {
			return fmt.Errorf("decode row at %s:%d: %w", a.file, h.LogPos, err)
		}
	}
	switch e.Type() {
	case replication.EnumRowsEventTypeInsert:
		for _, row := range e.Rows {
			a.tx.Changes = append(a.tx.Changes, rowtide.Change{Table: s.table, Op: rowtide.OpInsert, After: row})
		}
	case replication.EnumRowsEventTypeDelete:
		for _, row := range e.Rows {
			a.tx.Changes = append(a.tx.Changes, rowtide.Change{Table: s.table, Op: rowtide.OpDelete, Before: row})
		}
	case replication.EnumRowsEventTypeUpdate:
		for i := 0; i+1 < len(e.Rows); i += 2 {
			a.tx.Changes = append(a.tx.Changes, rowtide.Change{Table: s.table, Op: rowtide.OpUpdate, Before: e.Rows[i], After: e.Rows[i+1]})
		}
	default:
		return fmt.Errorf("rows event %s of table %s at %s:%d: %w", h.EventType, s.table, a.file, h.LogPos, ErrUnreadable)
	}
	return nil
}

// payload unpacks a compressed transaction. Only the outer header has a
// position to trust.
func (a *assembler) payload(ctx context.Context, h *replication.EventHeader, e *replication.TransactionPayloadEvent) error {
	for _, inner := range e.Events {
		ih := *inner.Header
		ih.LogPos = h.LogPos
		if err := a.event(ctx, &ih, inner.Event); err != nil {
			return err
		}
	}
	return nil
}

// commit hands the transaction on and makes room for the next. emit must not
// keep the Tx; it may keep rows and tables.
func (a *assembler) commit(ctx context.Context, h *replication.EventHeader) error {
	end := uint64(h.LogPos)
	if end < a.lastPos {
		// The 32-bit position wrapped: a transaction past 4 GiB. See NewVersion.
		end += 1 << 32
	}
	a.lastPos = end
	if a.tx.CommittedAt.IsZero() {
		a.tx.CommittedAt = commitTime(0, h.Timestamp)
	}
	v, err := rowtide.NewVersion(a.epoch, a.fileNo, end)
	if err != nil {
		return err
	}
	a.tx.Version = v
	if a.gtid != "" {
		a.withheld = append(a.withheld, a.gtid)
	}
	if len(a.prepared) == 0 {
		a.lowWater = rowtide.Position{File: a.file, Pos: end}
		a.tx.Position = rowtide.Position{File: a.file, Pos: end, GTID: strings.Join(a.withheld, ",")}
		a.withheld = a.withheld[:0]
	} else {
		a.tx.Position = a.lowWater
	}
	err = a.emit(ctx, &a.tx)
	a.reset()
	return err
}

// decodeWatched decodes the images of watched tables only: the others' rows are
// the larger part of the work on most servers, and nobody wants them.
func (a *assembler) decodeWatched(e *replication.RowsEvent, data []byte) error {
	pos, err := e.DecodeHeader(data)
	if err != nil {
		return err
	}
	s, known := a.shapes[e.TableID]
	// A compressed transaction is decoded whole before its table maps are seen
	// here, so an unknown id is decoded.
	if known && s == nil && !a.wanted(e.Table) {
		return nil
	}
	return e.DecodeData(pos, data)
}

// forgetUnwatched looks again at tables that were not wanted.
func (a *assembler) forgetUnwatched() {
	maps.DeleteFunc(a.shapes, func(_ uint64, s *shape) bool { return s == nil })
}

func (a *assembler) wanted(e *replication.TableMapEvent) bool {
	return a.watched[string(e.Schema)+"."+string(e.Table)] || a.own != nil && a.own[string(e.Schema)+"."+string(e.Table)]
}
