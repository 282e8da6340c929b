package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// A change of a module that is missing here must not be left out in silence.
func TestApplier_ChangeOfAModuleThatItLacksIsRefused(t *testing.T) {
	modules, err := aggregator.Compile([]aggregator.ModuleConfig{{Name: "event", Key: "{id}", From: &aggregator.FromConfig{Table: "shop.event"}}})
	if err != nil {
		t.Fatal(err)
	}
	k := known{newPipeline(aggregator.Config{}.WithDefaults(), modules, aggregator.Outside{}, slog.New(slog.DiscardHandler), aggregator.NopObserver{})}
	table := &rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id"}}
	send := func(module string) error {
		return k.HandleTx(t.Context(), &rowtide.Tx{Changes: []rowtide.Change{{Table: table, Op: rowtide.OpInsert, After: []rowtide.Value{int64(1)}, Module: module}}})
	}
	if err := send("event"); err != nil {
		t.Errorf("a module that is there: %v", err)
	}
	if err := send("venue"); err == nil || !strings.Contains(err.Error(), `module "venue" is not in this applier's config`) {
		t.Errorf("%v, want an error that names the module", err)
	}
}
