package stockapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/stockapi"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// sample has one event of every type and every field set somewhere.
func sample() stockapi.Batch {
	const h1, h2, h3 = "aaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccccccccc"
	item := func(sku string, q, after int64) stockapi.EventItem {
		return stockapi.EventItem{SKU: sku, Qty: q, AvailAfter: after}
	}
	ev := func(seq int64, typ stockapi.EventType, hold string, items ...stockapi.EventItem) stockapi.Event {
		return stockapi.Event{
			Seq: seq, Type: typ, Hold: hold, User: "u-1", Items: items,
			Deadline: 1762826400000, RedisMS: 1762825800000 + seq,
		}
	}
	load := stockapi.Event{
		Seq: 1, Type: stockapi.EventLoad, RedisMS: 1762825800001,
		Items: []stockapi.EventItem{{SKU: "A", Qty: 100, AvailAfter: 100, Sold: 20}, item("B", 5, 5)},
		Load:  &stockapi.EventLoadInfo{VisibleAt: 1762818000000, SellableAt: 1762825200000, EndAt: 1762912800000, Cells: 1},
	}
	first := ev(2, stockapi.EventHold, h1, item("A", 2, 98), item("B", 1, 4))
	first.Order = "order-1"
	paid := ev(4, stockapi.EventConfirm, h1, item("A", 2, 97), item("B", 1, 4))
	paid.Order, paid.Ref = "order-1", "pay-1"
	gone := ev(6, stockapi.EventCancel, h2, item("A", 1, 97))
	gone.Ref = "changed-mind"
	late := ev(7, stockapi.EventExpire, h3, item("A", 1, 98))
	late.Ref = "deadline"
	return stockapi.Batch{Version: stockapi.EventVersion, Event: "E17", Cell: 0, Epoch: 2, Events: []stockapi.Event{
		load, first, ev(3, stockapi.EventHold, h2, item("A", 1, 97)), paid, ev(5, stockapi.EventHold, h3, item("A", 1, 96)), gone, late,
	}}
}

func TestBatch_GoldenFile(t *testing.T) {
	golden := filepath.Join("testdata", "batch.json")
	value, err := stockapi.EncodeBatch(sample())
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, value, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	if *update {
		if err := os.WriteFile(golden, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("the format of events changed; it is a contract:\n%s\nwant\n%s", pretty.Bytes(), want)
	}
	back, err := stockapi.DecodeBatch(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := stockapi.EncodeBatch(back)
	if err != nil || !bytes.Equal(again, value) {
		t.Errorf("decoded and encoded again: %s %v, want %s", again, err, value)
	}
}

func TestDecodeBatch_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	good, err := stockapi.EncodeBatch(sample())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, from, to string }{
		{"newer version", `"v":1`, `"v":2`},
		{"no version", `"v":1,`, ``},
		{"unknown type", `"type":"expire"`, `"type":"melt"`},
		{"hole in the run", `"seq":5`, `"seq":6`},
		{"load that is not first", `"seq":1,"type":"load"`, `"seq":1,"type":"hold"`},
		{"epoch zero", `"epoch":2`, `"epoch":0`},
		{"negative quantity", `"q":2`, `"q":-2`},
		{"quantity zero", `"q":2`, `"q":0`},
		{"negative stock", `"avail_after":96`, `"avail_after":-1`},
		{"no hold id", `"hold":"bbbbbbbbbbbbbbbbbbbbbbbbbb"`, `"hold":""`},
		{"sku twice", `"sku":"B","q":1`, `"sku":"A","q":1`},
		{"half", good2(good), ``},
	} {
		bad := strings.Replace(string(good), tc.from, tc.to, 1)
		if bad == string(good) {
			t.Fatalf("%s: nothing was replaced", tc.name)
		}
		if _, err := stockapi.DecodeBatch([]byte(bad)); !errors.Is(err, stockapi.ErrBadEvent) {
			t.Errorf("%s: %v, want ErrBadEvent", tc.name, err)
		}
	}
	// A field that is added within a version does not stop an older reader.
	more := strings.Replace(string(good), `"v":1`, `"v":1,"trace":"abc"`, 1)
	if _, err := stockapi.DecodeBatch([]byte(more)); err != nil {
		t.Errorf("an added field: %v", err)
	}
}

// good2 is the second half of a value.
func good2(b []byte) string { return string(b[len(b)/2:]) }

func FuzzDecodeBatch(f *testing.F) {
	good, err := stockapi.EncodeBatch(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, value []byte) {
		b, err := stockapi.DecodeBatch(value)
		if err != nil {
			return
		}
		if _, err := stockapi.EncodeBatch(b); err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
	})
}
