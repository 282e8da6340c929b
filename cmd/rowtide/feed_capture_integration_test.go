//go:build integration

package main

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// feedRow is a row of the table that the captures follow, in MySQL's own text;
// nil is NULL.
type feedRow struct {
	id              uint64
	title           *string
	cents           int64
	at              time.Time
	day, dur, state string
	pic             []byte
	doc             string
}

const feedTable = `(id BIGINT UNSIGNED PRIMARY KEY, title VARCHAR(40) CHARACTER SET utf8mb4, price DECIMAL(10,2), at DATETIME(6), day DATE, dur TIME,
	state ENUM('draft','on sale'), pic VARBINARY(16), doc JSON)`

func (r *feedRow) price() string {
	return big.NewRat(r.cents, 100).FloatString(2)
}

// feedChange is one change of the table.
type feedChange struct {
	before, after *feedRow
	pos           int
}

// feedHistory is a random life of some rows; the last quarter moves keys too.
func feedHistory(n int) []feedChange {
	rng := rand.New(rand.NewPCG(1, 2))
	live := map[uint64]*feedRow{}
	ids := func(i int) uint64 { return 18446744073709551600 + uint64(i) }
	var out []feedChange
	for i := range n {
		id := ids(rng.IntN(12))
		before := live[id]
		var after *feedRow
		if before == nil || rng.IntN(4) > 0 {
			title := fmt.Sprintf("Stück \"%d\"", i)
			after = &feedRow{
				id: id, title: &title, cents: int64(i)*10 - 55, at: time.Date(2024, 2, 29, 8, 0, i, i*1000, time.UTC),
				day: fmt.Sprintf("2024-03-%02d", 1+i%28), dur: fmt.Sprintf("-%02d:00:05", i%90), state: []string{"draft", "on sale"}[i%2],
				pic: []byte{0, 0xFF, byte(i)}, doc: fmt.Sprintf(`{"n": %d, "s": "ü"}`, i),
			}
			if i%5 == 0 {
				after.title = nil
			}
		}
		if to := ids(20 + i); before != nil && after != nil && i > n*3/4 {
			after.id = to
		}
		delete(live, id)
		if after != nil {
			live[after.id] = after
		}
		out = append(out, feedChange{before, after, 1000 + 10*i})
	}
	return out
}

func (c *feedChange) exec(t *testing.T, db *sql.DB, table string) {
	t.Helper()
	var err error
	if c.before != nil && c.after == nil {
		_, err = db.ExecContext(t.Context(), "DELETE FROM "+table+" WHERE id=?", fmt.Sprint(c.before.id))
	} else {
		a := c.after
		args := []any{fmt.Sprint(a.id), a.title, a.price(), a.at.Format("2006-01-02 15:04:05.000000"), a.day, a.dur, a.state, a.pic, a.doc}
		q := "INSERT INTO " + table + " VALUES (?,?,?,?,?,?,?,?,?)"
		if c.before != nil {
			q = "UPDATE " + table + " SET id=?, title=?, price=?, at=?, day=?, dur=?, state=?, pic=?, doc=? WHERE id=?"
			args = append(args, fmt.Sprint(c.before.id))
		}
		_, err = db.ExecContext(t.Context(), q, args...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// object writes the columns in the table's order.
func (r *feedRow) object(values map[string]any) string {
	if r == nil {
		return "null"
	}
	var parts []string
	for _, c := range []string{"id", "title", "price", "at", "day", "dur", "state", "pic", "doc"} {
		parts = append(parts, jsonOf(c)+":"+jsonOf(values[c]))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (c *feedChange) op(insert, update, remove string) string {
	switch {
	case c.before == nil:
		return insert
	case c.after == nil:
		return remove
	}
	return update
}

// capture writes a change as a capture would. One change may take several
// records, each for the row with id.
type capture func(schema string, c *feedChange) []captured

type captured struct {
	id    uint64
	value string // empty: a tombstone
}

func canalRecords(schema string, c *feedChange) []captured {
	image := func(r *feedRow) string {
		if r == nil {
			return "null"
		}
		var pic strings.Builder
		for _, b := range r.pic {
			pic.WriteRune(rune(b))
		}
		return r.object(map[string]any{
			"id": fmt.Sprint(r.id), "title": r.title, "price": r.price(), "at": r.at.Format("2006-01-02 15:04:05.000000"), "day": r.day, "dur": r.dur,
			"state": map[string]string{"draft": "1", "on sale": "2"}[r.state], "pic": pic.String(), "doc": r.doc,
		})
	}
	row, old := image(c.after), "null"
	if c.after == nil {
		row = image(c.before)
	} else if c.before != nil {
		old = "[" + image(c.before) + "]"
	}
	types := `{"id":"bigint unsigned","title":"varchar(40)","price":"decimal(10,2)","at":"datetime(6)","day":"date","dur":"time",` +
		`"state":"enum('draft','on sale')","pic":"varbinary(16)","doc":"json"}`
	return []captured{{0, fmt.Sprintf(`{"database":%q,"table":"thing","type":%q,"isDdl":false,"es":%d,"ts":1,"pkNames":["id"],"mysqlType":%s,"data":[%s],"old":%s}`,
		schema, c.op("INSERT", "UPDATE", "DELETE"), 1e12+c.pos, types, row, old)}}
}

func maxwellRecords(schema string, c *feedChange) []captured {
	image := func(r *feedRow) string {
		if r == nil {
			return "{}"
		}
		return r.object(map[string]any{
			"id": r.id, "title": r.title, "price": json.Number(r.price()), "at": r.at.Format("2006-01-02 15:04:05.000000"), "day": r.day, "dur": r.dur,
			"state": r.state, "pic": base64.StdEncoding.EncodeToString(r.pic), "doc": json.RawMessage(r.doc),
		})
	}
	row, old := c.after, image(c.before)
	if row == nil {
		row, old = c.before, "{}"
	}
	return []captured{{row.id, fmt.Sprintf(`{"database":%q,"table":"thing","type":%q,"ts":%d,"xid":%d,"commit":true,"position":"binlog.000003:%d","primary_key_columns":["id"],"data":%s,"old":%s}`,
		schema, c.op("insert", "update", "delete"), 1_000_000+c.pos, c.pos, c.pos, image(row), old)}}
}

func debeziumRecords(schema string, c *feedChange) []captured {
	column := func(name, typ, semantic, params string) string {
		return fmt.Sprintf(`{"field":%q,"type":%q,"optional":true,"name":%q,"parameters":{%s}}`, name, typ, semantic, params)
	}
	columns := strings.Join([]string{
		column("id", "int64", "", `"__debezium.source.column.type":"BIGINT UNSIGNED"`), column("title", "string", "", ""),
		column("price", "bytes", "org.apache.kafka.connect.data.Decimal", `"scale":"2"`), column("at", "int64", "io.debezium.time.MicroTimestamp", ""),
		column("day", "int32", "io.debezium.time.Date", ""), column("dur", "int64", "io.debezium.time.MicroTime", ""),
		column("state", "string", "io.debezium.data.Enum", ""), column("pic", "bytes", "", ""), column("doc", "string", "io.debezium.data.Json", ""),
	}, ",")
	image := func(r *feedRow) string {
		if r == nil {
			return "null"
		}
		day, _ := time.Parse(time.DateOnly, r.day)
		var h, s int64
		if _, err := fmt.Sscanf(r.dur, "-%d:00:%d", &h, &s); err != nil {
			panic(err)
		}
		twos := []byte{byte(r.cents >> 24), byte(r.cents >> 16), byte(r.cents >> 8), byte(r.cents)}
		return r.object(map[string]any{
			"id": int64(r.id), "title": r.title, "price": twos, "at": r.at.UnixMicro(), "day": day.Unix() / 86400, "dur": -(h*3600 + s) * 1e6,
			"state": r.state, "pic": r.pic, "doc": r.doc,
		})
	}
	record := func(op string, before, after *feedRow) string {
		return fmt.Sprintf(`{"schema":{"type":"struct","fields":[{"field":"before","type":"struct","fields":[%[1]s]},{"field":"after","type":"struct","fields":[%[1]s]}]},`+
			`"payload":{"before":%s,"after":%s,"op":%q,"source":{"db":%q,"table":"thing","ts_ms":%d,"file":"binlog.000003","pos":%d,"row":0}}}`,
			columns, image(before), image(after), op, schema, int64(1_000_000+c.pos)*1000, c.pos)
	}
	switch {
	case c.before == nil:
		return []captured{{c.after.id, record("c", nil, c.after)}}
	case c.after == nil:
		return []captured{{c.before.id, record("d", c.before, nil)}, {c.before.id, ""}}
	case c.after.id != c.before.id: // as Debezium tells of a key that changes
		return []captured{{c.before.id, record("d", c.before, nil)}, {c.before.id, ""}, {c.after.id, record("c", nil, c.after)}}
	}
	return []captured{{c.after.id, record("u", c.before, c.after)}}
}
