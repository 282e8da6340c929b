package binlog

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"go.uber.org/goleak"

	"github.com/rowtide/rowtide"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The driver's and the syncer's zstd readers keep their workers.
		goleak.IgnoreAnyFunction("github.com/klauspost/compress/zstd.(*blockDec).startDecoder"))
}

// logWriter makes the events of a log and feeds an assembler with them, through
// go-mysql's own parser.
type logWriter struct {
	t      *testing.T
	asm    *assembler
	parser *replication.BinlogParser
	pos    uint32
	got    []rowtide.Tx
}

const (
	watchedTable   = 11
	unwatchedTable = 12
)

var testCharsets = Charsets{8: "latin1", 33: "utf8mb3", 45: "utf8mb4", 46: "utf8mb4", 224: "utf8mb4", 255: "utf8mb4", 63: "binary"}

func newLogWriter(t *testing.T) *logWriter {
	w := &logWriter{t: t, parser: replication.NewBinlogParser(), pos: 4}
	w.parser.SetParseTime(true)
	w.asm = newAssembler(1, testCharsets, map[string]bool{"shop.event": true}, rowtide.Position{File: "binlog.000007", Pos: 4}, w.take)
	w.parser.SetRowsEventDecodeFunc(w.asm.decodeWatched)
	w.must(w.asm.rotate("binlog.000007", 4))
	if _, err := w.parser.Parse(formatDescription(t)); err != nil {
		t.Fatal(err)
	}
	return w
}

// take copies the transaction: the assembler reuses it.
func (w *logWriter) take(_ context.Context, tx *rowtide.Tx) error {
	c := *tx
	c.Changes = slices.Clone(tx.Changes)
	w.got = append(w.got, c)
	return nil
}

// formatDescription is a real server's, with the events' header lengths.
func formatDescription(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/edge/my97-mysql-bin.000001")
	if err != nil {
		t.Fatal(err)
	}
	size := binary.LittleEndian.Uint32(b[4+9:])
	return b[4 : 4+size]
}

func (w *logWriter) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// raw sends an event of the given body.
func (w *logWriter) raw(typ replication.EventType, body []byte) error {
	size := uint32(19 + len(body) + 4)
	w.pos += size
	b := make([]byte, 19, size)
	binary.LittleEndian.PutUint32(b, 1_763_712_000)
	b[4] = byte(typ)
	binary.LittleEndian.PutUint32(b[5:], 99)
	binary.LittleEndian.PutUint32(b[9:], size)
	binary.LittleEndian.PutUint32(b[13:], w.pos)
	b = append(append(b, body...), 0, 0, 0, 0)
	ev, err := w.parser.Parse(b)
	if err != nil {
		w.t.Fatalf("parse made-up %s: %v", typ, err)
	}
	return w.asm.event(w.t.Context(), ev.Header, ev.Event)
}

// event sends a decoded event.
func (w *logWriter) event(typ replication.EventType, ev replication.Event) error {
	w.pos += 50
	return w.asm.event(w.t.Context(), &replication.EventHeader{Timestamp: 1_763_712_000, EventType: typ, EventSize: 50, LogPos: w.pos}, ev)
}

func (w *logWriter) query(q string) error {
	return w.event(replication.QUERY_EVENT, &replication.QueryEvent{Query: []byte(q)})
}

var sid = []byte{0x1c, 0x13, 0x3a, 0x9b, 0xe5, 0xe2, 0x11, 0xf1, 0x9e, 0x5c, 2, 0xfc, 0, 0, 0, 1}

const uuid = "1c133a9b-e5e2-11f1-9e5c-02fc00000001"

func (w *logWriter) gtid(n int64) {
	w.t.Helper()
	w.must(w.event(replication.GTID_EVENT, &replication.GTIDEvent{SID: sid, GNO: n, ImmediateCommitTimestamp: 1_763_712_000_123_456}))
}

func (w *logWriter) mariaGTID(n uint64, flags byte) {
	w.t.Helper()
	w.must(w.event(replication.MARIADB_GTID_EVENT, &replication.MariadbGTIDEvent{
		GTID: mysql.MariadbGTID{DomainID: 0, ServerID: 1, SequenceNumber: n}, Flags: flags,
	}))
}

func (w *logWriter) xid() {
	w.t.Helper()
	w.must(w.event(replication.XID_EVENT, &replication.XIDEvent{}))
}

func (w *logWriter) generic(typ replication.EventType, data ...byte) error {
	return w.event(typ, &replication.GenericEvent{Data: data})
}

// tableMap describes a table of INT columns.
func (w *logWriter) tableMap(id uint64, schema, table string, cols ...string) error {
	b := binary.LittleEndian.AppendUint64(nil, id)[:6]
	b = append(b, 1, 0, byte(len(schema)))
	b = append(append(b, schema...), 0, byte(len(table)))
	n := max(len(cols), 2)
	b = append(append(b, table...), 0, byte(n))
	for range n {
		b = append(b, mysql.MYSQL_TYPE_LONG)
	}
	b = append(b, 0, byte(1<<n-1)) // no metadata; all may be NULL
	var names []byte
	for _, c := range cols {
		names = append(append(names, byte(len(c))), c...)
	}
	if len(cols) > 0 {
		b = append(append(b, replication.TABLE_MAP_OPT_META_COLUMN_NAME, byte(len(names))), names...)
		b = append(b, replication.TABLE_MAP_OPT_META_SIMPLE_PRIMARY_KEY, 1, 0)
	}
	return w.raw(replication.TABLE_MAP_EVENT, b)
}

// rows sends a rows event of two INT columns; for an update, before and after
// alternate.
func (w *logWriter) rows(typ replication.EventType, id uint64, rows ...[2]int32) error {
	return w.partialRows(typ, id, 3, rows...)
}

func (w *logWriter) partialRows(typ replication.EventType, id uint64, bitmap byte, rows ...[2]int32) error {
	b := binary.LittleEndian.AppendUint64(nil, id)[:6]
	b = append(b, 0, 0, 2, 0, 2, bitmap) // no end of statement, which would forget the table ids
	if typ == replication.UPDATE_ROWS_EVENTv2 {
		b = append(b, bitmap)
	}
	for _, r := range rows {
		b = append(b, 0)
		for i, v := range r {
			if bitmap&(1<<i) != 0 {
				b = binary.LittleEndian.AppendUint32(b, uint32(v))
			}
		}
	}
	return w.raw(typ, b)
}

// insert sends a table map and one inserted row.
func (w *logWriter) insert(id, v int32) {
	w.t.Helper()
	w.must(w.tableMap(watchedTable, "shop", "event", "id", "v"))
	w.must(w.rows(replication.WRITE_ROWS_EVENTv2, watchedTable, [2]int32{id, v}))
}

// brief writes a transaction as "op a→b, …".
func brief(tx rowtide.Tx) string {
	var out []string
	show := func(r []rowtide.Value) string {
		var s []string
		for _, v := range r {
			b, err := rowtide.AppendText(nil, v)
			if err != nil {
				return err.Error()
			}
			s = append(s, string(b))
		}
		return strings.Join(s, " ")
	}
	for _, c := range tx.Changes {
		s := c.Op.String() + " "
		switch {
		case c.Before == nil:
			s += show(c.After)
		case c.After == nil:
			s += show(c.Before)
		default:
			s += show(c.Before) + " → " + show(c.After)
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func (w *logWriter) want(want ...string) {
	w.t.Helper()
	var got []string
	for _, tx := range w.got {
		got = append(got, brief(tx))
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("transactions %q, want %q", got, want)
	}
}

func (w *logWriter) wantErr(err, is error, text string) {
	w.t.Helper()
	if !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
		w.t.Errorf("err=%v, want %v with %q", err, is, text)
	}
}

// parseFile feeds a real log file to an assembler; errors of events are kept and
// the reading goes on, so that what follows is seen too.
func parseFile(t *testing.T, path, file, flavor string, watched ...string) (txs []rowtide.Tx, faults []error) {
	t.Helper()
	w := &logWriter{t: t}
	tables := map[string]bool{}
	for _, n := range watched {
		tables[n] = true
	}
	asm := newAssembler(1, testCharsets, tables, rowtide.Position{File: file, Pos: 4}, w.take)
	w.must(asm.rotate(file, 4))
	p := replication.NewBinlogParser()
	p.SetFlavor(flavor)
	p.SetParseTime(true)
	p.SetRenderJSONAsMySQLText(true)
	p.SetVerifyChecksum(true)
	p.SetRowsEventDecodeFunc(asm.decodeWatched)
	err := p.ParseFile(path, 0, func(e *replication.BinlogEvent) error {
		if err := asm.event(t.Context(), e.Header, e.Event); err != nil {
			faults = append(faults, err)
		}
		return nil
	})
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return w.got, faults
}
