package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
)

// rig is an assembler of one partition whose transactions are kept.
type rig struct {
	NopObserver
	t      *testing.T
	asm    *assembler
	txs    []*rowtide.Tx
	passed map[string]int
	offset int64
}

func (r *rig) PassedOver(why string) { r.passed[why]++ }

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	cfg = cfg.WithDefaults()
	dec, err := newDecoder(cfg, map[string]bool{"shop.event": true})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, passed: map[string]int{}}
	r.asm = &assembler{
		dec: dec, epoch: cfg.Epoch, ordered: true, name: "cdc:0",
		obs:  r,
		emit: func(_ context.Context, tx *rowtide.Tx) error { r.txs = append(r.txs, tx); return nil },
	}
	return r
}

func (r *rig) try(value string) error {
	err := r.asm.record(r.t.Context(), &Record{Topic: "cdc", Offset: r.offset, Value: []byte(value), Time: time.Unix(5, 0)})
	r.offset++
	return err
}

func (r *rig) feed(values ...string) {
	r.t.Helper()
	for _, v := range values {
		if err := r.try(v); err != nil {
			r.t.Fatal(err)
		}
	}
}

func maxwellRow(id int, extra string) string {
	return fmt.Sprintf(`{"database":"shop","table":"event","type":"insert","ts":100,"data":{"id":%d}%s}`, id, extra)
}

func shape(txs []*rowtide.Tx) string {
	var out []string
	for _, tx := range txs {
		out = append(out, fmt.Sprintf("%d@%s", len(tx.Changes), tx.Version))
	}
	return strings.Join(out, " ")
}

func TestAssembler_MaxwellTransactionIsOneTx(t *testing.T) {
	r := newRig(t, Config{Format: FormatMaxwell})
	r.feed(
		maxwellRow(1, `,"xid":7,"position":"b.000003:100"`), maxwellRow(2, `,"xid":7,"position":"b.000003:200"`),
		maxwellRow(3, `,"xid":7,"position":"b.000003:300","commit":true`),
		maxwellRow(4, `,"xid":8,"position":"b.000003:400"`), // its end is in another partition
		maxwellRow(5, `,"xid":9,"position":"b.000003:500","commit":true`),
	)
	if got, want := shape(r.txs), "3@1/3/300 1@1/3/400 1@1/3/500"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := r.txs[0].Position, (rowtide.Position{File: "cdc:0", Pos: 3, GTID: "cdc:0:3:" + fmt.Sprint(uint64(r.txs[0].Version)) + ":100"}); got != want {
		t.Errorf("position %+v, want %+v", got, want)
	}
}

func TestAssembler_DebeziumTransactionIsOneTx(t *testing.T) {
	row := func(id int, pos int, tx string) string {
		return fmt.Sprintf(`{"before":null,"after":{"id":%d},"op":"c","source":{"db":"shop","table":"event","file":"b.000001","pos":%d,"ts_ms":1000},"transaction":%s}`, id, pos, tx)
	}
	r := newRig(t, Config{Format: FormatDebezium})
	r.feed(row(1, 10, `{"id":"x:1"}`), "null", row(2, 20, `{"id":"x:1"}`), row(3, 30, `{"id":"x:2"}`))
	if got, want := shape(r.txs), "2@1/1/20"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := r.asm.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.feed(row(4, 40, "null"))
	if got, want := shape(r.txs), "2@1/1/20 1@1/1/30 1@1/1/40"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAssembler_HugeTransactionGoesOnInParts(t *testing.T) {
	r := newRig(t, Config{Format: FormatMaxwell})
	for i := range maxGroupChanges + 1 {
		r.feed(maxwellRow(i, fmt.Sprintf(`,"xid":7,"position":"b.000003:%d"`, i)))
	}
	if len(r.txs) != 1 || len(r.txs[0].Changes) != maxGroupChanges {
		t.Errorf("%d transactions, want one of %d changes so far", len(r.txs), maxGroupChanges)
	}
}

func TestAssembler_CanalMessageIsOneTxAtItsOffset(t *testing.T) {
	r := newRig(t, Config{Format: FormatCanal, Epoch: 3})
	r.offset = 1 << 40
	msg := `{"database":"shop","table":"event","type":"INSERT","es":1000,"mysqlType":{"id":"int"},"data":[{"id":"1"},{"id":"2"}]}`
	r.feed(msg, msg)
	for i, tx := range r.txs {
		if got, want := uint64(tx.Version), uint64(3)<<52|(1<<40+uint64(i)+1); got != want || len(tx.Changes) != 2 {
			t.Errorf("version %x with %d changes, want %x with 2", got, len(tx.Changes), want)
		}
	}
}

func TestAssembler_PassedOverRecordsMoveTheCheckpoint(t *testing.T) {
	r := newRig(t, Config{Format: FormatMaxwell})
	r.feed(maxwellRow(1, `,"position":"b.000003:100"`), "null", `{"type":"table-alter","database":"shop","table":"event"}`,
		`{"database":"shop","table":"cart","type":"insert","data":{}}`)
	last := r.txs[len(r.txs)-1]
	if last.Position.Pos != 4 || last.Version != r.txs[0].Version || r.passed["ddl"] != 1 || r.passed["table"] != 1 || r.passed["tombstone"] != 1 {
		t.Errorf("stands at %s, version %s, passed over %v", last.Position, last.Version, r.passed)
	}
}

// What cannot be decoded stops the stream before it: all before it is handed on,
// and the mark does not move.
func TestAssembler_StopsBeforeABadRecord(t *testing.T) {
	r := newRig(t, Config{Format: FormatMaxwell})
	r.feed(maxwellRow(1, `,"position":"b.000003:100"`), maxwellRow(2, `,"xid":7,"position":"b.000003:200"`))
	err := r.try(`{"type":"insert"`)
	if err == nil || !strings.HasPrefix(err.Error(), "topic cdc partition 0 offset 2: ") {
		t.Fatalf("error %v, want topic, partition, offset and reason", err)
	}
	if got, want := shape(r.txs), "1@1/3/100 1@1/3/200"; got != want || r.asm.mark.Next != 2 {
		t.Errorf("handed on %s up to %d, want %s up to 2", got, r.asm.mark.Next, want)
	}
}

func TestAssembler_PositionsThatStartAnewStopTheFeed(t *testing.T) {
	for _, tt := range []struct {
		name, row string
		restart   bool
	}{
		{"a connector that repeats itself", `,"position":"b.000003:100"`, false},
		{"another log", `,"position":"b.000001:100"`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{Format: FormatMaxwell})
			r.feed(maxwellRow(1, `,"position":"b.000003:100"`), maxwellRow(1, `,"position":"b.000003:200"`))
			row := maxwellRow(1, tt.row)
			if tt.restart {
				row = strings.Replace(row, `"ts":100`, `"ts":160`, 1)
			}
			err := r.try(row)
			if errors.Is(err, ErrPositionsRestart) != tt.restart {
				t.Fatalf("error %v, want ErrPositionsRestart: %v", err, tt.restart)
			}
			if err != nil && !strings.Contains(err.Error(), "set source.epoch to 2") {
				t.Errorf("error %q names no remedy", err)
			}
		})
	}
}

func TestAssembler_RecordsWithoutPosition(t *testing.T) {
	t.Run("in several partitions", func(t *testing.T) {
		r := newRig(t, Config{Format: FormatMaxwell})
		r.asm.ordered = false
		if err := r.try(maxwellRow(1, "")); err == nil || !strings.Contains(err.Error(), "output_binlog_position") {
			t.Errorf("error %v, want one that names the setting", err)
		}
	})
	t.Run("after records with one", func(t *testing.T) {
		r := newRig(t, Config{Format: FormatMaxwell})
		r.feed(maxwellRow(1, `,"position":"b.000003:100"`))
		if err := r.try(maxwellRow(1, "")); err == nil {
			t.Error("no error: the change would look older than the one before it")
		}
	})
	t.Run("of a snapshot lie below every position", func(t *testing.T) {
		r := newRig(t, Config{Format: FormatMaxwell})
		r.offset = 1 << 40
		r.feed(maxwellRow(1, `,"position":"b.000001:1"`), strings.Replace(maxwellRow(1, ""), "insert", "bootstrap-insert", 1))
		if a, b := r.txs[0].Version, r.txs[1].Version; b >= a || b == 0 {
			t.Errorf("snapshot has version %s, the change before it %s", b, a)
		}
	})
}

// cache is set-if-newer as Redis does it.
type cache map[string]struct {
	version rowtide.Version
	row     string
}

func (c cache) apply(t *testing.T, tx *rowtide.Tx) {
	t.Helper()
	for _, ch := range tx.Changes {
		for _, image := range [][]rowtide.Value{ch.Before, ch.After} {
			if image == nil {
				continue
			}
			key, err := rowtide.AppendText(nil, image[0])
			if err != nil {
				t.Fatal(err)
			}
			e := c[string(key)]
			if tx.Version < e.version {
				continue
			}
			e.version, e.row = tx.Version, ""
			if &image[0] == firstOf(ch.After) {
				e.row = fmt.Sprint(image...)
			}
			c[string(key)] = e
		}
	}
}

func firstOf(row []rowtide.Value) *rowtide.Value {
	if len(row) == 0 {
		return nil
	}
	return &row[0]
}

// history is a random life of a few rows, as Maxwell tells it, with the final
// state of each.
func history(n int) (records []string, final map[string]string) {
	final = map[string]string{}
	live := map[int]int{}
	for i := range n {
		id := rand.IntN(5)
		_, there := live[id]
		r := map[string]any{
			"database": "shop", "table": "event", "ts": 100 + i, "position": fmt.Sprintf("b.%06d:%d", 1+i/50, 100+i%50),
			"data": map[string]any{"id": id, "n": i},
		}
		switch {
		case !there:
			r["type"] = "insert"
		case rand.IntN(4) == 0:
			r["type"] = "delete"
		default:
			r["type"], r["old"] = "update", map[string]any{"n": live[id]}
		}
		if live[id] = i; r["type"] == "delete" {
			delete(live, id)
			final[fmt.Sprint(id)] = ""
		} else {
			final[fmt.Sprint(id)] = fmt.Sprint(int64(id), int64(i))
		}
		b, _ := json.Marshal(r)
		records = append(records, string(b))
	}
	return records, final
}

// A capture that starts again repeats records; a reader that starts again repeats
// from its checkpoint. Neither moves a version back.
func TestReplayAndDisorder_EndInTheSameState(t *testing.T) {
	for range 50 {
		records, want := history(200)
		r := newRig(t, Config{Format: FormatMaxwell})
		for i := range records {
			r.feed(records[i])
			if rand.IntN(30) > 0 {
				continue
			}
			r.feed(records[max(0, i-rand.IntN(20)) : i+1]...) // the capture repeats
		}
		got := cache{}
		for _, tx := range r.txs {
			got.apply(t, tx)
		}
		for range 20 { // the reader repeats a part, or another one is behind
			from := rand.IntN(len(r.txs))
			for _, tx := range r.txs[from:min(from+30, len(r.txs))] {
				got.apply(t, tx)
			}
		}
		shuffled := append([]*rowtide.Tx(nil), r.txs...) // partitions in any order
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := cache{}
		for _, tx := range shuffled {
			other.apply(t, tx)
		}
		for id, row := range want {
			if got[id].row != row || other[id].row != row {
				t.Fatalf("row %s is %q in order and %q in disorder, want %q", id, got[id].row, other[id].row, row)
			}
		}
	}
}
