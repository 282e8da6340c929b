//go:build integration

package binlog_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

// entry is what a sink holds for a key.
type entry struct {
	version rowtide.Version
	row     string // "" when the row is gone
}

// sink keeps the newest version of each row, as Redis does. A row that a backfill
// read must be what the log has said so far: anything else is older or newer than
// its version claims.
type sink struct {
	t        *testing.T
	table    string
	key      []string // columns
	progress *binlog.Progress

	mu      sync.Mutex
	entries map[string]entry
	reads   map[string]int
	last    rowtide.Position
	chunks  int
	failed  bool
	hook    func(chunks int) (save bool, err error) // after each chunk
	halted  bool
	changed chan struct{}
}

func newSink(t *testing.T, table string, key ...string) *sink {
	return &sink{t: t, table: table, key: key, entries: map[string]entry{}, reads: map[string]int{}, changed: make(chan struct{}, 1)}
}

func (s *sink) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wasRead := false
	for i := range tx.Changes {
		c := &tx.Changes[i]
		if c.Table.String() != s.table {
			s.t.Errorf("change of %s at %s reached the handler", c.Table, tx.Position)
		}
		if c.Before != nil {
			s.entries[s.keyText(c.Table, c.Before)] = entry{version: tx.Version}
		}
		if c.After == nil {
			continue
		}
		key, now := s.keyText(c.Table, c.After), entry{tx.Version, rowText(c.Table, c.After)}
		was := s.entries[key]
		if c.Op == rowtide.OpRead {
			wasRead = true
			s.reads[key]++
			if was.version != 0 && was.row != now.row && !s.failed {
				s.failed = true // one says it
				s.t.Errorf("at %s a backfill read %s, but the log has %q since %s", tx.Version, now.row, was.row, was.version)
			}
		}
		if now.version >= was.version {
			s.entries[key] = now
		}
	}
	s.last = tx.Position
	if wasRead {
		s.chunks++
		if s.hook != nil {
			save, err := s.hook(s.chunks)
			if err != nil {
				return err
			}
			s.halted = s.halted || !save
		}
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
	if s.halted {
		return nil
	}
	var gtids []string
	if tx.Position.GTID != "" {
		gtids = []string{tx.Position.GTID}
	}
	return s.progress.Save(ctx, tx.Position, gtids)
}

func (s *sink) keyText(t *rowtide.Table, row []rowtide.Value) string {
	var out []byte
	for _, name := range s.key {
		out, _ = rowtide.AppendValue(out, row[t.Column(name)])
		out = append(out, ',')
	}
	return string(out)
}

func rowText(t *rowtide.Table, row []rowtide.Value) string {
	var out []byte
	for i, v := range row {
		out = append(append(out, t.Columns[i]...), '=')
		out, _ = rowtide.AppendValue(out, v)
		out = append(out, ' ')
	}
	return string(out)
}

// filling is a source with its backfiller at work.
type filling struct {
	*stream
	d    *database
	sink *sink
	bf   *binlog.Backfiller
	quit context.CancelFunc
	out  chan error
}

const daemonName = "rowtide:main"

// fillConfig has a schema for our own tables of this test alone.
func (d *database) fillConfig(mode string) binlog.Config {
	d.t.Helper()
	cfg := d.config()
	cfg.Mode, cfg.StartAt = mode, binlog.StartLatest
	cfg.Backfill.Schema = d.schema + "_rt"
	d.t.Cleanup(func() {
		_, _ = d.db.ExecContext(context.WithoutCancel(d.t.Context()), "DROP DATABASE IF EXISTS "+cfg.Backfill.Schema)
	})
	return cfg
}

// startFill opens a source on the sink's table and its backfiller; prepare may
// set the latter up.
func startFill(t *testing.T, d *database, cfg binlog.Config, store binlog.Store, sink *sink, obs binlog.Observer, prepare func(*binlog.Backfiller)) *filling {
	t.Helper()
	src := binlog.New(cfg, []string{sink.table}, slog.New(slog.DiscardHandler), obs)
	t.Cleanup(func() { src.Close() })
	if err := src.Preflight(testContext(t), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := src.PreflightBackfill(testContext(t)); err != nil {
		t.Fatal(err)
	}
	progress, err := src.Resume(testContext(t), store)
	if err != nil {
		t.Fatal(err)
	}
	sink.progress = progress
	f := &filling{
		stream: &stream{t: t, src: src, progress: progress, done: make(chan error, 1)}, d: d, sink: sink, out: make(chan error, 1),
		bf: src.Backfiller(daemonName, []binlog.BackfillTarget{{Module: "m/1", Table: sink.table}}),
	}
	if prepare != nil {
		prepare(f.bf)
	}
	if err := f.bf.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(t.Context())
	go func() { f.done <- src.Run(ctx, sink) }()
	go func() { f.out <- f.bf.Run(ctx) }()
	t.Cleanup(f.stopFill)
	return f
}

func (f *filling) stopFill() {
	if f.quit == nil {
		f.quit = f.cancel
		f.stop()
		if err := <-f.out; err != nil {
			f.t.Errorf("backfiller ended with %v", err)
		}
	}
}

// requests lists them all.
func (f *filling) requests() []binlog.Backfill {
	f.t.Helper()
	list, err := f.bf.List(testContext(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	return list
}

// until waits until the newest request satisfies ok.
func (f *filling) until(what string, ok func(b binlog.Backfill) bool) binlog.Backfill {
	f.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		list := f.requests()
		if len(list) > 0 && ok(list[len(list)-1]) {
			return list[len(list)-1]
		}
		select {
		case <-tick.C:
		case err := <-f.done:
			f.ended = true
			f.t.Fatalf("the source ended (%v) before %s", err, what)
		case <-deadline:
			f.t.Fatalf("never: %s; requests %+v", what, list)
		}
	}
}

func (f *filling) untilDone() binlog.Backfill {
	f.t.Helper()
	return f.until("done", func(b binlog.Backfill) bool {
		if b.Status == binlog.BackfillFailed {
			f.t.Fatalf("failed: %s", b.Err)
		}
		return b.Status == binlog.BackfillDone
	})
}

// table reads what the sink should hold, in the log's form.
func (f *filling) table(where string) map[string]string {
	f.t.Helper()
	r := f.src.Reader()
	cols, _, err := r.Types(testContext(f.t), f.sink.table)
	if err != nil {
		f.t.Fatal(err)
	}
	shape := &rowtide.Table{Columns: cols}
	out := map[string]string{}
	query := "SELECT `" + strings.Join(cols, "`,`") + "` FROM " + f.sink.table + where
	err = r.Each(testContext(f.t), query, nil, func(_ []string, row []rowtide.Value) error {
		out[rowText(shape, row)] = ""
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// equals compares the sink with the table.
func (f *filling) equals(where string) {
	f.t.Helper()
	want := f.table(where)
	f.sink.mu.Lock()
	defer f.sink.mu.Unlock()
	held := 0
	for key, e := range f.sink.entries {
		if e.row == "" {
			continue
		}
		held++
		if _, ok := want[e.row]; !ok {
			f.t.Errorf("key %s holds %s, which the table does not", key, e.row)
		}
	}
	if held != len(want) {
		f.t.Errorf("%d rows held, the table has %d", held, len(want))
	}
}

// fillRows makes rows 1 to n.
func (d *database) fillRows(n int) {
	d.t.Helper()
	for at := 1; at <= n; at += 1000 {
		var b strings.Builder
		for id := at; id <= min(n, at+999); id++ {
			fmt.Fprintf(&b, ",(%d,%d)", id, id*10)
		}
		d.exec("INSERT INTO event VALUES " + b.String()[1:])
	}
}

func onEveryFlavorAndMode(t *testing.T, fn func(t *testing.T, target testenv.SQLTarget, mode string)) {
	t.Helper()
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		for _, mode := range []string{binlog.ModeAuto, binlog.ModeFile} {
			t.Run(mode, func(t *testing.T) { fn(t, target, mode) })
		}
	})
}
