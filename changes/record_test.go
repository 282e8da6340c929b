package changes_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/changes"
)

func TestMain(m *testing.M) {
	// A library's clock, one for the process.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

var (
	at    = time.Date(2026, 11, 21, 8, 0, 0, 123456000, time.UTC)
	event = &rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id", "title"}, PrimaryKey: []int{0}}
	note  = &rowtide.Table{Schema: "shop", Name: "note", Columns: []string{"text"}}
	// every value that a column can have
	wide = []rowtide.Value{
		nil, int8(-8), int16(math.MinInt16), int32(math.MaxInt32), int64(math.MinInt64),
		uint8(255), uint16(16), uint32(math.MaxUint32), uint64(math.MaxUint64),
		float32(1.5), math.SmallestNonzeroFloat64, "", "text \x00 é漢", time.Date(1000, 1, 1, 0, 0, 0, 1000, time.UTC), at,
		[]byte{},
		[]byte{0, 255},
		rowtide.JSON(`{"a": 1}`),
	}
)

func wideTable() *rowtide.Table {
	t := &rowtide.Table{Schema: "s", Name: "wide"}
	for i := range wide {
		t.Columns = append(t.Columns, string(rune('a'+i)))
	}
	return t
}

func key(module, id string) rowtide.Key { return rowtide.Key{Module: module, Version: 2, ID: id} }

func routed(module, id string, t *rowtide.Table, op rowtide.Op, before, after []rowtide.Value) rowtide.Routed {
	return rowtide.Routed{Key: key(module, id), Change: rowtide.Change{Table: t, Op: op, Before: before, After: after, Module: module}}
}

// golden is one record of every kind of thing.
func golden() changes.Record {
	return changes.Record{
		Watermark: 1<<52 | 7<<32 | 900, SentAt: at,
		Parts: []changes.Part{
			{
				Version: 1<<52 | 7<<32 | 500, CommittedAt: at.Add(-time.Second),
				Position: rowtide.Position{File: "binlog.000007", Pos: 500, GTID: "0-1-77"},
				Changes: []rowtide.Routed{
					routed("event", "42", event, rowtide.OpUpdate, []rowtide.Value{int64(42), "old"}, []rowtide.Value{int64(42), "new"}),
					routed("event", "43", event, rowtide.OpDelete, []rowtide.Value{int64(43), nil}, nil),
				},
			},
			{
				Version: 1<<52 | 7<<32 | 900, Position: rowtide.Position{File: "binlog.000007", Pos: 900},
				Changes: []rowtide.Routed{
					routed("wide", "1", wideTable(), rowtide.OpInsert, nil, wide),
					routed("event", "44", event, rowtide.OpRead, nil, []rowtide.Value{int64(44), "read"}),
					routed("event", "", event, rowtide.OpTruncate, nil, nil),
				},
			},
		},
	}
}

func encode(t testing.TB, r changes.Record) []byte {
	t.Helper()
	b, err := r.AppendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// plain is a record without what decoding adds.
func plain(r changes.Record) changes.Record {
	for i := range r.Parts {
		r.Parts[i].Bytes = 0
	}
	return r
}

func TestRecord_ComesBackAsItWas(t *testing.T) {
	for name, want := range map[string]changes.Record{
		"all":       golden(),
		"heartbeat": {Watermark: 5, SentAt: at},
		"unknown":   {},
	} {
		got, err := changes.NewDecoder().Decode(encode(t, want))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(plain(got), want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

const goldenFile = "testdata/record.hex"

// The bytes are a contract between releases: readers and appliers are restarted
// one after the other.
func TestRecord_GoldenVectorHolds(t *testing.T) {
	text, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(t, golden()); !bytes.Equal(got, want) {
		t.Errorf("the record is encoded as\n%x\nwant\n%x", got, want)
	}
	got, err := changes.NewDecoder().Decode(want)
	if err != nil || !reflect.DeepEqual(plain(got), golden()) {
		t.Errorf("%s reads as\n%+v, %v", goldenFile, got, err)
	}
}

func TestRecord_TheSameShapeIsTheSameTable(t *testing.T) {
	d := changes.NewDecoder()
	b := encode(t, golden())
	one, err := d.Decode(bytes.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	two, err := d.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if one.Parts[0].Changes[0].Change.Table != two.Parts[0].Changes[0].Change.Table {
		t.Error("a shape that is seen again is another table")
	}
	clear(b) // the caller's again
	if got := one.Parts[0].Changes[0].Change.Table.String(); got != "shop.event" {
		t.Errorf("table %q, want shop.event", got)
	}
}

func TestRecord_EveryCutIsNoticed(t *testing.T) {
	b := encode(t, golden())
	for n := range b {
		if _, err := changes.NewDecoder().Decode(b[:n]); !errors.Is(err, rowtide.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v, want ErrCorrupt", n, len(b), err)
		}
	}
	if _, err := changes.NewDecoder().Decode(append(b, 0)); !errors.Is(err, rowtide.ErrCorrupt) {
		t.Errorf("a byte too many: %v, want ErrCorrupt", err)
	}
}

func TestRecord_NewerFormatIsRefused(t *testing.T) {
	b := encode(t, golden())
	b[1]++
	if _, err := changes.NewDecoder().Decode(b); !errors.Is(err, rowtide.ErrNewerFormat) {
		t.Errorf("%v, want ErrNewerFormat", err)
	}
}

func TestRecord_ImageOfAnotherShapeIsCorrupt(t *testing.T) {
	for _, image := range [][]rowtide.Value{{int64(1)}, {int64(1), "a", "b"}} {
		b := encode(t, changes.Record{Parts: []changes.Part{{Changes: []rowtide.Routed{routed("m", "1", event, rowtide.OpInsert, nil, image)}}}})
		if _, err := changes.NewDecoder().Decode(b); !errors.Is(err, rowtide.ErrCorrupt) {
			t.Errorf("%d values for 2 columns: %v, want ErrCorrupt", len(image), err)
		}
	}
}

func TestRecord_ValueThatIsNoColumnsIsAnError(t *testing.T) {
	r := changes.Record{Parts: []changes.Part{{Changes: []rowtide.Routed{routed("m", "1", note, rowtide.OpInsert, nil, []rowtide.Value{struct{}{}})}}}}
	if _, err := r.AppendRecord(nil); err == nil || !strings.Contains(err.Error(), "shop.note: column text") {
		t.Errorf("%v, want an error that names table and column", err)
	}
}

// Whatever bytes come, decoding ends; and what it takes for a record is encoded
// and read again as the same.
func FuzzDecode(f *testing.F) {
	f.Add(encode(f, golden()))
	f.Add(encode(f, changes.Record{Watermark: 1, SentAt: at}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := changes.NewDecoder().Decode(slices.Clone(b))
		if err != nil {
			return
		}
		again, err := changes.NewDecoder().Decode(encode(t, r))
		if err != nil {
			t.Fatal(err)
		}
		// Not DeepEqual: NaN differs from itself.
		if x, y := encode(t, r), encode(t, again); !bytes.Equal(x, y) {
			t.Fatalf("%x\nis read again as\n%x", x, y)
		}
	})
}
