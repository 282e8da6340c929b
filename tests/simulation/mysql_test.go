package simulation

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

func itoa(n int) string { return strconv.Itoa(n) }

var (
	table = &rowtide.Table{Schema: "shop", Name: "row", Columns: []string{"id", "seq"}, PrimaryKey: []int{0}}
	// rule is what many rows are shown with.
	rule = &rowtide.Table{Schema: "shop", Name: "rule", Columns: []string{"id"}, PrimaryKey: []int{0}}
)

// database is the source: rows with their past, and the log of transactions. The
// value of a row is the number of the transaction that wrote it.
type database struct {
	w *world

	mu    sync.Mutex
	rows  [][]state // by id, oldest first; what is older than keepStates is cut
	log   []*event
	first int // number of log[0]
	epoch uint32
	pos   uint64
	wake  chan struct{}

	nextSource time.Duration
	dice       *dice
}

// state is what a row was from a transaction on.
type state struct {
	seq     int
	visible time.Duration
	deleted bool
	version rowtide.Version
}

// event is a transaction in the log.
type event struct {
	seq     int
	ids     []int
	at      time.Duration // in the log
	visible time.Duration // to a SELECT
	tx      *rowtide.Tx
	mass    bool // the keys are not in the log, only what they all depend on
}

const keepStates = 30 * time.Second

func newDatabase(w *world) *database {
	db := &database{w: w, rows: make([][]state, w.keys), first: 1, epoch: 1, pos: 4, wake: make(chan struct{}, 1)}
	db.dice = w.dice(diceWriter + 100)
	db.nextSource = db.dice.gap(w.sourceEvery)
	return db
}

// fill writes every row once.
func (db *database) fill() {
	for id := range db.rows {
		db.commit([]int{id}, db.dice)
	}
}

func (db *database) commit(ids []int, d *dice) *event { return db.write(&event{ids: ids}, d) }

// massCommit changes what a quarter of the rows are shown with.
func (db *database) massCommit(d *dice) *event {
	e := &event{mass: true}
	for id := d.n(4); id < len(db.rows); id += 4 {
		e.ids = append(e.ids, id)
	}
	return db.write(e, d)
}

func (db *database) write(e *event, d *dice) *event {
	now := db.w.now()
	e.at, e.visible = now, now
	if d.chance(db.w.invisible) {
		e.visible += d.upTo(db.w.invisibleFor)
	}
	slices.Sort(e.ids)
	e.ids = slices.Compact(e.ids)
	remove := make([]bool, len(e.ids))
	for i := range remove {
		remove[i] = !e.mass && d.chance(db.w.deletes)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if now > db.nextSource {
		db.failOver(now)
	}
	e.seq = db.first + len(db.log)
	db.pos += 100
	version, err := rowtide.NewVersion(db.epoch, 1, db.pos)
	if err != nil {
		panic(err)
	}
	e.tx = &rowtide.Tx{
		Position: rowtide.Position{File: "binlog.000001", Pos: db.pos, GTID: itoa(e.seq)},
		Version:  version, CommittedAt: time.Now(), Bytes: 100,
	}
	for i, id := range e.ids {
		e.tx.Changes = append(e.tx.Changes, db.change(id, e, remove[i]))
		db.w.trace.note(id, "commit", -1, e.seq, version)
	}
	if e.mass {
		e.tx.Changes = []rowtide.Change{{Table: rule, Op: rowtide.OpInsert, After: []rowtide.Value{int64(e.seq)}}}
	}
	db.log = append(db.log, e)
	db.prune(now)
	select {
	case db.wake <- struct{}{}:
	default:
	}
	return e
}

// change writes one row; mu is held.
func (db *database) change(id int, e *event, remove bool) rowtide.Change {
	past := db.rows[id]
	row := func(seq int) []rowtide.Value { return []rowtide.Value{int64(id), int64(seq)} }
	c := rowtide.Change{Table: table, Op: rowtide.OpInsert, After: row(e.seq)}
	next := state{seq: e.seq, visible: e.visible, version: e.tx.Version}
	if n := len(past); n > 0 && !past[n-1].deleted {
		c.Op, c.Before = rowtide.OpUpdate, row(past[n-1].seq)
		if remove {
			c.Op, c.After, next.deleted = rowtide.OpDelete, nil, true
		}
	}
	cut := 0
	for cut+1 < len(past) && past[cut+1].visible < db.w.now()-keepStates {
		cut++
	}
	db.rows[id] = append(past[cut:len(past):len(past)], next)
	return c
}

// failOver starts a new log, whose positions begin again; mu is held.
func (db *database) failOver(now time.Duration) {
	db.nextSource = now + db.dice.gap(db.w.sourceEvery)
	db.pos = 4
	if !db.w.off.epochs {
		db.epoch++
	}
}

// prune forgets what no daemon can ask for any more; mu is held.
func (db *database) prune(now time.Duration) {
	if len(db.log) > 1000 && len(db.log)%1000 == 0 {
		n := 0
		for db.log[n].at < now-2*keepStates {
			n++
		}
		db.log, db.first = slices.Clone(db.log[n:]), db.first+n
	}
}

// version is that of transaction number seq.
func (db *database) version(seq int) rowtide.Version {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.log[seq-db.first].tx.Version
}

// after lists the transactions behind number seq.
func (db *database) after(seq int) []*event {
	db.mu.Lock()
	defer db.mu.Unlock()
	if seq+1 < db.first {
		panic("the log is gone that the daemon must go on from: " + itoa(seq))
	}
	return slices.Clone(db.log[min(seq+1-db.first, len(db.log)):])
}

// read is a SELECT on a server that is lag behind: the number in each row, absent
// rows are left out.
func (db *database) read(ids []int64, lag time.Duration) map[int64]int64 {
	seen := db.w.now() - lag
	out := make(map[int64]int64, len(ids))
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, id := range ids {
		for _, s := range slices.Backward(db.rows[id]) {
			if s.visible > seen {
				continue
			}
			if !s.deleted {
				out[id] = int64(s.seq)
			}
			break
		}
	}
	return out
}

// deletedSince reports whether the row was absent at some time since seq.
func (db *database) deletedSince(id, seq int) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, s := range slices.Backward(db.rows[id]) {
		if s.seq < seq {
			return false
		}
		if s.deleted {
			return true
		}
	}
	return false
}

// newestAt is the number of the newest transaction of a row at a time, 0 if that
// is forgotten.
func (db *database) newestAt(id int, at time.Duration) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, s := range slices.Backward(db.rows[id]) {
		if s.visible <= at {
			return s.seq
		}
	}
	return 0
}
