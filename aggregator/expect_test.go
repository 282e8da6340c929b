package aggregator_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

func TestExpect_FromModule(t *testing.T) {
	m := compile(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.Key = "e{id}-{venue_id}" }))[0]
	x, err := m.Expect(eventTable.Columns)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := x.All(), "SELECT `id`, `title`, `venue_id` FROM `shop`.`event`"; got != want || x.Rebuild() || m.Table() != "shop.event" {
		t.Errorf("all %s, rebuild %t, table %s; want %s", got, x.Rebuild(), m.Table(), want)
	}
	got, err := x.Row(row(7, "a", 5))
	if err != nil || got.ID != "e7-5" || string(got.Payload) != `{"title":"a","id":7}` {
		t.Errorf("row: %s %s, %v", got.ID, got.Payload, err)
	}
	if _, err := x.Row(row(nil, "a", 5)); err == nil || !strings.Contains(err.Error(), "module event: key: key column is NULL") {
		t.Errorf("row without a key: %v", err)
	}
	for id, want := range map[string][]any{
		"e7-5": {"7", "5"}, "e-": {"", ""}, "e7-5-6": {"7", "5-6"}, "7-5": nil, "e75": nil,
	} {
		query, args, ok := x.OneRow(aggregator.Expected{ID: id})
		if ok != (want != nil) || !reflect.DeepEqual(args, want) {
			t.Errorf("one row %q: %v %t, want %v", id, args, ok, want)
		}
		if ok && !strings.HasSuffix(query, " WHERE `id` = ? AND `venue_id` = ?") {
			t.Errorf("one row %q: %s", id, query)
		}
	}
}

func TestExpect_TemplateThatCannotBeTakenApart(t *testing.T) {
	m := compile(t, withModule(eventModule, func(c *aggregator.ModuleConfig) { c.Key = "{id}{venue_id}" }))[0]
	x, err := m.Expect(eventTable.Columns)
	if err != nil {
		t.Fatal(err)
	}
	if _, args, ok := x.OneRow(aggregator.Expected{ID: "75"}); ok {
		t.Errorf("split 75 into %v", args)
	}
}

func TestExpect_RebuildModule(t *testing.T) {
	m := compile(t, withModule(pageModule, func(c *aggregator.ModuleConfig) { c.Watch = []aggregator.WatchConfig{c.Watch[2], c.Watch[1]} }))[0]
	x, err := m.Expect(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := x.All(), "SELECT DISTINCT `event_id` FROM `shop`.`session` WHERE `event_id` IS NOT NULL"; got != want || !x.Rebuild() || m.Table() != "shop.session" {
		t.Errorf("all %s, rebuild %t, table %s; want %s", got, x.Rebuild(), m.Table(), want)
	}
	m = compile(t, withModule(pageModule, func(c *aggregator.ModuleConfig) { c.Watch = c.Watch[2:] }))[0]
	if _, err := m.Expect(nil); err == nil || !strings.Contains(err.Error(), "no watch has a key") || m.Table() != "" {
		t.Errorf("err=%v, table %q; want the keys not to be listable", err, m.Table())
	}
}

// A key that is streamed and one that is selected must meet: same code, same
// bytes.
func TestExpect_AgreesWithTheStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		r := start(t, w, nil, 0, eventModule())
		image := row(int64(7), "a\"b", nil)
		r.handle(tx(1, ins(eventTable, image...)))
		r.drain()
		x, err := compile(t, eventModule())[0].Expect(eventTable.Columns)
		if err != nil {
			t.Fatal(err)
		}
		want, err := x.Row(image)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.entry(t, rowtide.Key{Module: "event", Version: 1, ID: want.ID}); string(got.Payload) != string(want.Payload) {
			t.Errorf("streamed %s, selected %s", got.Payload, want.Payload)
		}
	})
}
