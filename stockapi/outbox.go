package stockapi

import (
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// mark is a place in a cell's history and the id of its outbox entry.
type mark struct {
	epoch, seq int64
}

func (m mark) String() string { return itoa(m.epoch) + "-" + itoa(m.seq) }

func parseMark(s string) (mark, error) {
	e, n, ok := strings.Cut(s, "-")
	if !ok {
		return mark{}, fmt.Errorf("outbox id %q: want EPOCH-SEQ", s)
	}
	epoch, err := atoi(e)
	if err != nil {
		return mark{}, err
	}
	seq, err := atoi(n)
	return mark{epoch, seq}, err
}

// batchOf turns the head of a read of the outbox into one batch: entries of one
// epoch, since a batch has one. It returns how many entries it took.
func batchOf(c Cell, entries []redis.XMessage) (Batch, int, error) {
	b := Batch{Version: EventVersion, Event: c.Event, Cell: c.N}
	for i, x := range entries {
		m, err := parseMark(x.ID)
		if err != nil {
			return Batch{}, 0, err
		}
		if i == 0 {
			b.Epoch = m.epoch
		} else if m.epoch != b.Epoch {
			break
		}
		e, err := eventOf(m.seq, x.Values)
		if err != nil {
			return Batch{}, 0, fmt.Errorf("outbox entry %s of %s: %w", x.ID, c, err)
		}
		b.Events = append(b.Events, e)
	}
	return b, len(b.Events), nil
}

// eventOf reads the fields that emit in prelude.lua wrote.
func eventOf(seq int64, values map[string]any) (Event, error) {
	r := fieldReader{values: values}
	e := Event{
		Seq:      seq,
		Type:     EventType(r.text("t")),
		Hold:     r.text("h"),
		User:     r.text("u"),
		Deadline: r.number("d"),
		Order:    r.text("o"),
		Ref:      r.text("r"),
		RedisMS:  r.number("ms"),
	}
	for _, row := range rowsOf(r.text("i")) {
		it := EventItem{SKU: row[0], Qty: r.at(row, 1), AvailAfter: r.at(row, 2)}
		if len(row) > 3 {
			it.Sold = r.at(row, 3)
		}
		e.Items = append(e.Items, it)
	}
	if x := r.text("x"); x != "" {
		row := strings.Split(x, ",")
		e.Load = &EventLoadInfo{VisibleAt: r.at(row, 0), SellableAt: r.at(row, 1), EndAt: r.at(row, 2), Cells: int(r.at(row, 3))}
	}
	return e, r.err
}

// fieldReader reads what a script packed and keeps the first fault, so that the
// readers above stay one expression per field.
type fieldReader struct {
	values map[string]any
	err    error
}

func (r *fieldReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrBadEvent, fmt.Sprintf(format, args...))
	}
}

func (r *fieldReader) text(name string) string {
	s, ok := r.values[name].(string)
	if !ok {
		r.fail("no field %s", name)
	}
	return s
}

func (r *fieldReader) number(name string) int64 { return r.parse(r.text(name)) }

func (r *fieldReader) at(row []string, i int) int64 {
	if i >= len(row) {
		r.fail("row %v is short", row)
		return 0
	}
	return r.parse(row[i])
}

func (r *fieldReader) parse(s string) int64 {
	n, err := atoi(s)
	if err != nil {
		r.fail("%v", err)
	}
	return n
}

// rowsOf splits "a,1;b,2".
func rowsOf(s string) [][]string {
	if s == "" {
		return nil
	}
	var out [][]string
	for row := range strings.SplitSeq(s, ";") {
		out = append(out, strings.Split(row, ","))
	}
	return out
}
