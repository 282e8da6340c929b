package stockapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/stockapi"
)

func TestConfig_DefaultsAreValid(t *testing.T) {
	if err := (stockapi.Config{}).WithDefaults().Validate(); err != nil {
		t.Fatal(err)
	}
	c := stockapi.Config{HoldTTL: time.Hour, RelayBatch: 500}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatalf("a default gets in the way of what was set: %v", err)
	}
}

func TestConfig_ReportsEveryFaultAtOnce(t *testing.T) {
	c := stockapi.Config{
		Prefix: "s:{x}", Cells: 2, HoldTTL: time.Hour, MaxHoldTTL: time.Minute, Retention: time.Millisecond,
		OutboxKeep: 10, OutboxMax: 10, Attempts: -1, SweepEvery: -1, SweepBatch: 5000, RelayBatch: 2000, RelayBlock: 1,
		DiscoverEvery: -1, LedgerBatch: 1, MaxBody: -1, FewLeft: -1,
		Kafka: stockapi.KafkaConfig{Partitions: -1, Replication: -1},
		Limits: []stockapi.LimitRule{
			{ID: "a", Per: []string{"user", "event"}, Max: 1},
			{ID: "a", Per: []string{"event"}, Max: 0, Match: stockapi.LimitMatch{SKU: "["}},
			{ID: "b,c", Per: []string{"user", "sku"}, Max: 1},
		},
	}.WithDefaults()
	err := c.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{
		"prefix", "cells", "hold_ttl", "retention", "outbox_max", "attempts", "sweep_every", "sweep_batch", "relay_batch",
		"relay_block", "discover_every", "ledger_batch", "max_body", "few_left", "partitions", "replication",
		"is there twice", "per must be", "max must be", `pattern "["`, `limit "b,c"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in:\n%v", want, err)
		}
	}
}

func TestParseHoldID_ReadsWhatItWrites(t *testing.T) {
	const text = "E-1_x.0.abcdefghijklmnopqrstuvwx23"
	id, err := stockapi.ParseHoldID(text)
	if err != nil || id.String() != text || id.Cell.Event != "E-1_x" {
		t.Fatalf("%+v %v", id, err)
	}
	for _, bad := range []string{
		"", "x", "E.0", "E.0.short", "E.-1.abcdefghijklmnopqrstuvwx23", "E.00.abcdefghijklmnopqrstuvwx23", "E.x.abcdefghijklmnopqrstuvwx23",
		"E}.0.abcdefghijklmnopqrstuvwx23", ".0.abcdefghijklmnopqrstuvwx23", "E.0.abcdefghijklmnopqrstuvwx21", "E.0.ABCDEFGHIJKLMNOPQRSTUVWX23",
	} {
		if id, err := stockapi.ParseHoldID(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, id)
		}
	}
}
