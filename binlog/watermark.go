package binlog

import (
	"slices"
	"sync"

	"github.com/rowtide/rowtide"
)

// Our own tables, in the schema of Config.Backfill.
const (
	heartbeatTable = "heartbeat"
	backfillTable  = "backfill"
)

// maxTouched bounds the memory of a window. A chunk with more changed rows beside
// it is read again: the flood ends some time.
const maxTouched = 200_000

// mark is where in the log a row that we wrote came by.
type mark struct {
	// version is the transaction's, after the handler took it; 0: it will not come,
	// since the log continues on another server.
	version rowtide.Version
	// rows and dropped count what became of a chunk that ended here.
	rows, dropped int
	// void: the chunk cannot be told from the changes beside it; read it again.
	void bool
}

// marks watches the stream for rows that we write ourselves: heartbeats, and the
// two watermarks around each chunk of a backfill. A nil *marks watches nothing.
type marks struct {
	schema, daemon string
	tables         map[string]bool // ours, "schema.table"
	wake           chan struct{}   // a request was written

	mu      sync.Mutex
	waiting map[string]chan mark // by token
	win     *window
}

func newMarks(schema, daemon string) *marks {
	return &marks{
		schema: schema, daemon: daemon, wake: make(chan struct{}, 1), waiting: map[string]chan mark{},
		tables: map[string]bool{schema + "." + heartbeatTable: true, schema + "." + backfillTable: true},
	}
}

// window is one chunk between its watermarks: from the low one on, the log says
// which of its rows were changed after, or while, they were read.
type window struct {
	table     string
	low, high string // tokens; high is empty until the rows are there
	key       []string
	open      bool // low has come by
	void      bool
	touched   map[string]struct{}
	shape     *rowtide.Table // of the columns in places
	places    []int
	scratch   []byte
	chunk     *chunk
}

// expect returns a channel on which the mark comes when the stream has come to
// the row with this token. It must be called before the row is written.
func (m *marks) expect(token string) <-chan mark {
	ch := make(chan mark, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting[token] = ch
	return ch
}

// forget withdraws a token that will not be written.
func (m *marks) forget(token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, token)
}

// begin opens a window; it must be called before low is written.
func (m *marks) begin(table, low string, key []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.win = &window{table: table, low: low, key: key, touched: map[string]struct{}{}}
}

// load gives the window its rows; it must be called before high is written. The
// mark comes when the rows have been handed over.
func (m *marks) load(c *chunk, high string) <-chan mark {
	ch := m.expect(high)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.win == nil { // abandoned meanwhile
		delete(m.waiting, high)
		ch := make(chan mark, 1)
		ch <- mark{}
		return ch
	}
	m.win.chunk, m.win.high = c, high
	return ch
}

// end gives the window up.
func (m *marks) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.win != nil {
		delete(m.waiting, m.win.high)
	}
	m.win = nil
}

// abandon says that what was written to the server of before may never come.
func (m *marks) abandon() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.win = nil
	for _, ch := range m.waiting {
		ch <- mark{}
	}
	clear(m.waiting)
}

// reached are marks to be told once the handler has their transaction.
type reached []telling

type telling struct {
	ch chan mark
	mark
}

// tell sends the marks; every channel has room for its only one.
func (r reached) tell() {
	for _, t := range r {
		t.ch <- t.mark
	}
}

// pass takes our own rows out of tx, and puts the rows of a chunk in when tx is
// its high watermark. That way they are part of a transaction of the log: they
// have its version, and the checkpoint covers all of them or none.
func (m *marks) pass(tx *rowtide.Tx) reached {
	if m == nil || len(tx.Changes) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.ContainsFunc(tx.Changes, m.ours) {
		return m.read(tx)
	}
	if m.win != nil && m.win.open {
		for i := range tx.Changes {
			m.win.note(&tx.Changes[i])
		}
	}
	return nil
}

func (m *marks) ours(c rowtide.Change) bool {
	return c.Table.Schema == m.schema && m.tables[c.Table.String()]
}

// read acts on our own rows of a transaction. We write each in one of its own.
func (m *marks) read(tx *rowtide.Tx) reached {
	var out reached
	var high *window
	for i := range tx.Changes {
		c := &tx.Changes[i]
		if !m.ours(*c) || c.After == nil {
			continue
		}
		if daemon, _ := column(c, "daemon").(string); daemon != m.daemon {
			continue
		}
		if c.Table.Name == backfillTable {
			m.rouse()
			continue
		}
		token, _ := column(c, "token").(string)
		if m.win != nil && token == m.win.low {
			m.win.open = true
		}
		ch, known := m.waiting[token]
		if !known {
			continue
		}
		delete(m.waiting, token)
		out = append(out, telling{ch, mark{version: tx.Version}})
		if m.win != nil && token == m.win.high {
			high, m.win = m.win, nil
		}
	}
	tx.Changes = slices.DeleteFunc(tx.Changes, m.ours)
	if high != nil {
		last := &out[len(out)-1]
		last.rows, last.dropped, last.void = high.release(tx)
	}
	return out
}

// rouse tells the backfiller that there may be something to do.
func (m *marks) rouse() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func column(c *rowtide.Change, name string) rowtide.Value {
	if i := c.Table.Column(name); i >= 0 {
		return c.After[i]
	}
	return nil
}

// note records which row a change is about: the one that was, and the one that
// is, since a primary key can change too.
func (w *window) note(c *rowtide.Change) {
	if w.void || c.Table.Schema+"."+c.Table.Name != w.table {
		return
	}
	if c.Table != w.shape && !w.resolve(c.Table) {
		return
	}
	for _, image := range [][]rowtide.Value{c.Before, c.After} {
		if image == nil {
			continue
		}
		if !w.render(image, w.places) {
			return
		}
		w.touched[string(w.scratch)] = struct{}{}
	}
	w.void = len(w.touched) > maxTouched
}

// resolve finds the key's columns in a shape. One without them voids: the table
// was altered, or lost rows that the log does not name (OpTruncate has no columns).
func (w *window) resolve(t *rowtide.Table) bool {
	w.shape, w.places = t, w.places[:0]
	for _, name := range w.key {
		i := t.Column(name)
		if i < 0 {
			w.void, w.shape = true, nil
			return false
		}
		w.places = append(w.places, i)
	}
	return true
}

// render writes a row's key to scratch, exactly as its values are: two spellings
// that a collation holds equal are two keys here, and the log has both.
func (w *window) render(row []rowtide.Value, places []int) bool {
	w.scratch = w.scratch[:0]
	for _, i := range places {
		var err error
		if w.scratch, err = rowtide.AppendValue(w.scratch, row[i]); err != nil {
			w.void = true
			return false
		}
		w.scratch = append(w.scratch, ',')
	}
	return true
}

// release appends the rows that nobody touched to tx.
func (w *window) release(tx *rowtide.Tx) (rows, dropped int, void bool) {
	c := w.chunk
	// Without the low watermark the changes after it were not seen either.
	if w.void = w.void || !w.open; w.void {
		return 0, 0, true
	}
	kept, before := 0, len(tx.Changes)
	for _, row := range c.rows {
		if len(w.touched) > 0 {
			if !w.render(row, c.table.PrimaryKey) {
				tx.Changes = tx.Changes[:before]
				return 0, 0, true
			}
			if _, touched := w.touched[string(w.scratch)]; touched {
				continue
			}
		}
		for _, module := range c.modules {
			tx.Changes = append(tx.Changes, rowtide.Change{Table: c.table, Op: rowtide.OpRead, After: row, Module: module})
		}
		kept++
	}
	tx.Bytes += c.bytes
	return kept, len(c.rows) - kept, false
}
