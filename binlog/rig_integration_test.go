//go:build integration

package binlog_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

// patience is generous: other suites may run on the same two cores.
const patience = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// database is a schema of the test's own on some server, and one session in it.
type database struct {
	t      *testing.T
	target testenv.SQLTarget
	schema string
	db     *sql.DB
	conn   *sql.Conn
}

func openDatabase(t *testing.T, target testenv.SQLTarget) *database {
	t.Helper()
	db, err := sql.Open("mysql", target.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, target: target, schema: testenv.UniqueName(t, "b"), db: db}
	t.Cleanup(func() { db.Close() })
	d.reconnect()
	d.exec("CREATE DATABASE " + d.schema)
	t.Cleanup(func() {
		// A server of the test's own may be gone.
		_, _ = db.ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE IF EXISTS "+d.schema)
	})
	d.exec("USE " + d.schema)
	return d
}

func (d *database) reconnect() {
	d.t.Helper()
	conn, err := d.db.Conn(testContext(d.t))
	if err != nil {
		d.t.Fatal(err)
	}
	d.conn = conn
	d.t.Cleanup(func() { conn.Close() })
}

func (d *database) exec(queries ...string) {
	d.t.Helper()
	for _, q := range queries {
		if _, err := d.conn.ExecContext(testContext(d.t), q); err != nil {
			d.t.Fatalf("%.200s: %v", q, err)
		}
	}
}

// head is where the log ends now.
func (d *database) head() string {
	d.t.Helper()
	for _, q := range []string{"SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"} {
		rows, err := d.conn.QueryContext(testContext(d.t), q)
		if err != nil {
			continue
		}
		cols, err := rows.Columns()
		if err != nil {
			d.t.Fatal(err)
		}
		vals := make([]sql.NullString, len(cols))
		ptrs := make([]any, len(cols))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		for rows.Next() {
			if err := rows.Scan(ptrs...); err != nil {
				d.t.Fatal(err)
			}
		}
		rows.Close()
		return vals[0].String + ":" + vals[1].String
	}
	d.t.Fatal("no statement shows the log's end")
	return ""
}

func (d *database) config() binlog.Config {
	return binlog.Config{
		Addr: d.target.Addr, User: d.target.User, Password: d.target.Password,
		ServerID:  1_000_000 + rand.Uint32N(1_000_000_000), // a clash among tests would end both
		Heartbeat: time.Second,
	}.WithDefaults()
}

// recorder is a handler that keeps what it gets.
type recorder struct {
	mu      sync.Mutex
	txs     []rowtide.Tx // those with changes
	last    rowtide.Position
	gtids   []string
	changed chan struct{}
	hook    func(tx *rowtide.Tx) error
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{}, 1)} }

func (r *recorder) HandleTx(_ context.Context, tx *rowtide.Tx) error {
	if r.hook != nil {
		if err := r.hook(tx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = tx.Position
	if tx.Position.GTID != "" {
		r.gtids = append(r.gtids, tx.Position.GTID)
	}
	if len(tx.Changes) > 0 {
		c := *tx
		c.Changes = slices.Clone(tx.Changes)
		r.txs = append(r.txs, c)
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return nil
}

// briefs are the transactions so far, as text.
func (r *recorder) briefs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []string{}
	for _, tx := range r.txs {
		out = append(out, brief(tx))
	}
	return out
}

// brief writes a transaction as "+a b" for inserts, "-a b" for deletes and
// "a b>a c" for updates, joined by "; ".
func brief(tx rowtide.Tx) string {
	show := func(row []rowtide.Value) string {
		var s []string
		for _, v := range row {
			b, err := rowtide.AppendText(nil, v)
			if err != nil {
				b = []byte(err.Error())
			}
			s = append(s, string(b))
		}
		return strings.Join(s, " ")
	}
	var out []string
	for _, c := range tx.Changes {
		switch c.Op {
		case rowtide.OpInsert:
			out = append(out, "+"+show(c.After))
		case rowtide.OpRead:
			out = append(out, "="+show(c.After))
		case rowtide.OpDelete:
			out = append(out, "-"+show(c.Before))
		case rowtide.OpUpdate:
			out = append(out, show(c.Before)+">"+show(c.After))
		case rowtide.OpTruncate:
			out = append(out, "truncate "+c.Table.String())
		}
	}
	return strings.Join(out, "; ")
}

// stream is a running source.
type stream struct {
	t        *testing.T
	src      *binlog.Source
	rec      *recorder
	progress *binlog.Progress
	cancel   context.CancelFunc
	done     chan error
	ended    bool
}

func openSource(t *testing.T, cfg binlog.Config, watched ...string) *binlog.Source {
	t.Helper()
	src := binlog.New(cfg, watched, slog.New(slog.DiscardHandler), binlog.NopObserver{})
	t.Cleanup(func() { src.Close() })
	if err := src.Preflight(testContext(t), nil, nil); err != nil {
		t.Fatal(err)
	}
	return src
}

// follow starts a source; the checkpoint moves only by save.
func follow(t *testing.T, cfg binlog.Config, store binlog.Store, rec *recorder, watched ...string) *stream {
	t.Helper()
	s := &stream{t: t, src: openSource(t, cfg, watched...), rec: rec, done: make(chan error, 1)}
	var err error
	if s.progress, err = s.src.Resume(testContext(t), store); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(t.Context())
	go func() { s.done <- s.src.Run(ctx, rec) }()
	t.Cleanup(s.stop)
	return s
}

// stop ends the source in an orderly way.
func (s *stream) stop() {
	s.t.Helper()
	if s.ended {
		return
	}
	s.ended = true
	s.cancel()
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("source ended with %v", err)
		}
	case <-time.After(patience):
		s.t.Error("source does not stop")
	}
}

// failure waits for the source to end by itself.
func (s *stream) failure() error {
	s.t.Helper()
	select {
	case err := <-s.done:
		s.ended = true
		return err
	case <-time.After(patience):
		s.t.Fatal("the source does not end")
		return nil
	}
}

// await waits until the transactions satisfy ok.
func (s *stream) await(what string, ok func(briefs []string) bool) []string {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		got := s.rec.briefs()
		if ok(got) {
			return got
		}
		select {
		case <-s.rec.changed:
		case err := <-s.done:
			s.ended = true
			s.t.Fatalf("the source ended (%v) before %s; got %q", err, what, got)
		case <-timeout:
			s.t.Fatalf("never: %s; got %q", what, got)
		}
	}
}

// want waits for exactly these transactions.
func (s *stream) want(want ...string) {
	s.t.Helper()
	got := s.await(fmt.Sprintf("%d transactions", len(want)), func(b []string) bool { return len(b) >= len(want) })
	if !slices.Equal(got, want) {
		s.t.Errorf("transactions\n got %q\nwant %q", got, want)
	}
}

// save moves the checkpoint over all that was received.
func (s *stream) save() {
	s.t.Helper()
	s.rec.mu.Lock()
	last, gtids := s.rec.last, s.rec.gtids
	s.rec.gtids = nil
	s.rec.mu.Unlock()
	if err := s.progress.Save(testContext(s.t), last, gtids); err != nil {
		s.t.Fatal(err)
	}
}

// startPrivate starts a server of the test's own.
func startPrivate(t *testing.T, flavor string, flags ...string) *testenv.SQLServer {
	t.Helper()
	begin := testenv.StartMariaDB
	if flavor == testenv.FlavorMySQL {
		begin = testenv.StartMySQL
	}
	s, err := begin(testContext(t), testenv.Options{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// onEveryFlavor runs fn on each shared server.
func onEveryFlavor(t *testing.T, fn func(t *testing.T, target testenv.SQLTarget)) {
	t.Helper()
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) { fn(t, target) })
	}
}
