//go:build integration

package stockapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/stockapi"
)

func TestHold_LastUnitRetryGetsTheFirstAnswer(t *testing.T) {
	s := newShop(t, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 1})
	first := s.mustHold(t, want("u1", "k1", item("A", 1)))
	again := s.mustHold(t, want("u1", "k1", item("A", 1)))
	if !again.Replayed || first.Replayed {
		t.Fatalf("replayed: first=%t again=%t, want false, true", first.Replayed, again.Replayed)
	}
	again.Replayed = false
	if got, want := fmt.Sprint(again), fmt.Sprint(first); got != want {
		t.Fatalf("retry=%s, want %s", got, want)
	}
	if _, err := s.Hold(t.Context(), want("u2", "k2", item("A", 1))); stockapi.RefusalCode(err) != stockapi.CodeAllHeld {
		t.Fatalf("second buyer: %v, want all-held", err)
	}
	if _, err := s.Confirm(t.Context(), first.ID, "p1"); err != nil {
		t.Fatal(err)
	}
	// Even now that it is sold and nothing is left, the retry is the first answer.
	if h := s.mustHold(t, want("u1", "k1", item("A", 1))); h.State != stockapi.StateHeld || h.Seq != first.Seq {
		t.Fatalf("retry after confirm: %+v, want the first answer", h)
	}
	if _, err := s.Hold(t.Context(), want("u2", "k2", item("A", 1))); stockapi.RefusalCode(err) != stockapi.CodeSoldOut {
		t.Fatalf("second buyer after the sale: %v, want sold-out", err)
	}
}

func TestHold_RefusalWritesNothing(t *testing.T) {
	limits := []stockapi.LimitRule{{ID: "ev", Per: []string{"user", "event"}, Max: 3}}
	s := newShop(t, stockapi.Config{Limits: limits, OutboxMax: 6, OutboxKeep: 1})
	s.load(t, "E", map[string]int64{"A": 5, "B": 1})
	s.mustHold(t, want("u1", "k1", item("A", 1)))
	meta := stockapi.MetaKey(s.cfg.Prefix, "E")
	set := func(field, value string) func() {
		return func() {
			if err := s.rdb.HSet(t.Context(), meta, field, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := want("u1", "k9", item("A", 1))
	old.Epoch = 7
	for _, tc := range []struct {
		name string
		prep func()
		undo func()
		req  stockapi.HoldRequest
		code stockapi.Code
	}{
		{name: "unknown event", req: stockapi.HoldRequest{Event: "nope", User: "u", Key: "k", Items: []stockapi.Item{item("A", 1)}}, code: stockapi.CodeUnknownEvent},
		{name: "unknown sku", req: want("u2", "k", item("Z", 1)), code: stockapi.CodeUnknownSKU},
		{name: "key reused", req: want("u1", "k1", item("A", 2)), code: stockapi.CodeKeyReused},
		{name: "short", req: want("u2", "k", item("B", 2)), code: stockapi.CodeSoldOut},
		{name: "one item of two short", req: want("u2", "k", item("A", 1), item("B", 2)), code: stockapi.CodeSoldOut},
		{name: "limit", req: want("u1", "k2", item("A", 3)), code: stockapi.CodeLimit},
		{name: "epoch", req: old, code: stockapi.CodeEpoch},
		{name: "frozen", prep: set("mode", "F"), undo: set("mode", "O"), req: want("u2", "k", item("A", 1)), code: stockapi.CodeFrozen},
		{name: "not yet", prep: set("sat", "99999999999999"), undo: set("sat", "0"), req: want("u2", "k", item("A", 1)), code: stockapi.CodeNotYet},
		{name: "ended", prep: set("end", "1"), undo: set("end", "0"), req: want("u2", "k", item("A", 1)), code: stockapi.CodeEnded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.prep != nil {
				tc.prep()
				defer tc.undo()
			}
			before := s.dump(t)
			if _, err := s.Hold(t.Context(), tc.req); stockapi.RefusalCode(err) != tc.code {
				t.Fatalf("hold: %v, want %s", err, tc.code)
			}
			if !sameDump(before, s.dump(t)) {
				t.Fatal("the refusal changed something in redis")
			}
		})
	}
	for i := range 4 {
		s.mustHold(t, want(fmt.Sprintf("v%d", i), "k", item("A", 1)))
	}
	before := s.dump(t)
	if _, err := s.Hold(t.Context(), want("w", "k", item("B", 1))); stockapi.RefusalCode(err) != stockapi.CodeBackpressure {
		t.Fatalf("hold with a full outbox: %v, want backpressure", err)
	}
	if !sameDump(before, s.dump(t)) {
		t.Fatal("backpressure changed something in redis")
	}
}

// TestHold_TestsInTheDocumentedOrder begins with a request that every test would
// refuse and mends one fault after the other.
func TestHold_TestsInTheDocumentedOrder(t *testing.T) {
	s := newShop(t, stockapi.Config{OutboxKeep: 1, OutboxMax: 3, Limits: []stockapi.LimitRule{{ID: "ev", Per: []string{"user", "event"}, Max: 2}}})
	s.load(t, "E", map[string]int64{"A": 3})
	s.mustHold(t, want("u", "k1", item("A", 1)))
	s.mustHold(t, want("v", "k1", item("A", 2)))
	meta := stockapi.MetaKey(s.cfg.Prefix, "E")
	set := func(field, value string) {
		t.Helper()
		if err := s.rdb.HSet(t.Context(), meta, field, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("mode", "F")
	set("sat", "99999999999999")
	req := want("u", "k1", item("A", 2))
	req.Epoch = 7
	for _, step := range []struct {
		code stockapi.Code
		mend func()
	}{
		{stockapi.CodeKeyReused, func() { req.Key = "k2" }},
		{stockapi.CodeEpoch, func() { req.Epoch = 1 }},
		{stockapi.CodeFrozen, func() { set("mode", "O") }},
		{stockapi.CodeNotYet, func() { set("sat", "0") }},
		{stockapi.CodeBackpressure, func() {
			if err := s.rdb.XTrimMaxLen(t.Context(), stockapi.OutboxKey(s.cfg.Prefix, "E"), 1).Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{stockapi.CodeLimit, func() { req.User = "w" }},
		{stockapi.CodeAllHeld, nil},
	} {
		if _, err := s.Hold(t.Context(), req); stockapi.RefusalCode(err) != step.code {
			t.Fatalf("hold: %v, want %s", err, step.code)
		}
		if step.mend != nil {
			step.mend()
		}
	}
}

func TestHold_WrongTypeWritesNothing(t *testing.T) {
	s := newShop(t, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 5})
	base := s.cfg.Prefix + ":{E:0}:"
	if err := s.rdb.Set(t.Context(), base+"x", "not a zset", 0).Err(); err != nil {
		t.Fatal(err)
	}
	before := s.dump(t)
	if _, err := s.Hold(t.Context(), want("u", "k", item("A", 1))); err == nil || errors.Is(err, stockapi.ErrUnknownOutcome) {
		t.Fatalf("hold: %v, want a definite error", err)
	}
	if !sameDump(before, s.dump(t)) {
		t.Fatal("a script that failed left something behind")
	}
}

func TestHold_LimitsCountLiveHoldsAndComeBack(t *testing.T) {
	s := newShop(t, stockapi.Config{Limits: []stockapi.LimitRule{
		{ID: "ev", Per: []string{"user", "event"}, Max: 4},
		{ID: "sku", Match: stockapi.LimitMatch{SKU: "A*"}, Per: []string{"user", "sku"}, Max: 2},
	}})
	s.load(t, "E", map[string]int64{"A1": 100, "B": 100})
	h := s.mustHold(t, want("u", "k1", item("A1", 2)))
	_, err := s.Hold(t.Context(), want("u", "k2", item("A1", 1)))
	r, ok := errors.AsType[*stockapi.RefusalError](err)
	if !ok || r.Rule != "sku" || r.Used != 2 || r.Max != 2 {
		t.Fatalf("third of A1: %v, want rule sku 2 of 2", err)
	}
	s.mustHold(t, want("u", "k3", item("B", 2)))
	if _, err := s.Hold(t.Context(), want("u", "k4", item("B", 1))); stockapi.RefusalCode(err) != stockapi.CodeLimit {
		t.Fatalf("fifth of the event: %v, want limit-exceeded", err)
	}
	s.mustHold(t, want("other", "k5", item("B", 4))) // a limit is one user's
	if _, err := s.Cancel(t.Context(), h.ID, "mind"); err != nil {
		t.Fatal(err)
	}
	s.mustHold(t, want("u", "k6", item("A1", 2)))
}

func TestEnd_AnswersByState(t *testing.T) {
	s := newShop(t, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 10})
	ctx := t.Context()
	sold := s.mustHold(t, want("u", "k1", item("A", 1)))
	if h, err := s.Confirm(ctx, sold.ID, "p1"); err != nil || h.State != stockapi.StateConfirmed || h.Ref != "p1" {
		t.Fatalf("confirm: %+v %v", h, err)
	}
	if h, err := s.Confirm(ctx, sold.ID, "p1"); err != nil || !h.Replayed {
		t.Fatalf("confirm again: %+v %v, want a replay", h, err)
	}
	code := func(_ stockapi.Hold, err error) stockapi.Code { return stockapi.RefusalCode(err) }
	if got := code(s.Confirm(ctx, sold.ID, "p2")); got != stockapi.CodeAlreadyConfirmed {
		t.Errorf("second payment: %s", got)
	}
	if got := code(s.Cancel(ctx, sold.ID, "")); got != stockapi.CodeAlreadyConfirmed {
		t.Errorf("cancel what is sold: %s", got)
	}
	gone := s.mustHold(t, want("u", "k2", item("A", 1)))
	if _, err := s.Cancel(ctx, gone.ID, "mind"); err != nil {
		t.Fatal(err)
	}
	if h, err := s.Cancel(ctx, gone.ID, "other"); err != nil || !h.Replayed || h.Ref != "mind" {
		t.Errorf("cancel again: %+v %v, want the first answer", h, err)
	}
	if got := code(s.Confirm(ctx, gone.ID, "p")); got != stockapi.CodeHoldCancelled {
		t.Errorf("confirm what is cancelled: %s", got)
	}
	none := gone.ID
	none.Hash = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	if got := code(s.Cancel(ctx, none, "")); got != stockapi.CodeHoldNotFound {
		t.Errorf("cancel of nothing: %s", got)
	}
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Avail: 9, Sold: 1, Loaded: 10}); got != want {
		t.Errorf("counters=%+v, want %+v", got, want)
	}
}

// expireAll sweeps until the holds with a deadline of a few milliseconds are gone.
func expireAll(t testing.TB, s *shop, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for n := 0; n < want; {
		got, err := s.Sweep(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += got
	}
}

func TestSweep_ExpiresOnceAndKeepsWhatIsNotDue(t *testing.T) {
	s := newShop(t, stockapi.Config{Grace: -1, SweepBatch: 3})
	s.load(t, "E", map[string]int64{"A": 20})
	var ids []stockapi.HoldID
	for i := range 8 {
		req := want("u", fmt.Sprint(i), item("A", 1))
		req.TTL = time.Millisecond
		ids = append(ids, s.mustHold(t, req).ID)
	}
	kept := s.mustHold(t, want("u", "kept", item("A", 1)))
	expireAll(t, s, 8)
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
		t.Fatalf("sweep again: %d %v, want nothing left", n, err)
	}
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Avail: 19, Held: 1, Loaded: 20}); got != want {
		t.Fatalf("counters=%+v, want %+v", got, want)
	}
	for _, id := range ids {
		if _, err := s.Confirm(t.Context(), id, "p"); stockapi.RefusalCode(err) != stockapi.CodeHoldExpired {
			t.Fatalf("confirm of an expired hold: %v", err)
		}
	}
	if h, err := s.Lookup(t.Context(), kept.ID); err != nil || h.State != stockapi.StateHeld {
		t.Fatalf("kept hold: %+v %v", h, err)
	}
}

func TestLoad_NeverTouchesALiveSale(t *testing.T) {
	s := newShop(t, stockapi.Config{})
	stock := map[string]int64{"A": 5}
	s.load(t, "E", stock)
	h := s.mustHold(t, want("u", "k", item("A", 2)))
	before := s.dump(t)
	s.load(t, "E", stock) // the same again, as a process that boots does it
	if !sameDump(before, s.dump(t)) {
		t.Fatal("loading the same sale again changed something")
	}
	load := func(epoch int64, rows ...stockapi.SaleSKU) stockapi.Code {
		return stockapi.RefusalCode(s.Load(t.Context(), stockapi.Sale{Event: "E", Epoch: epoch, SKUs: rows}))
	}
	if got := load(1, stockapi.SaleSKU{SKU: "A", Stock: 100}); got != stockapi.CodeStale {
		t.Errorf("other stock, same epoch: %q", got)
	}
	if got := load(2, stockapi.SaleSKU{SKU: "A", Stock: 100}); got != stockapi.CodeBusy {
		t.Errorf("newer epoch with an open hold: %q", got)
	}
	if _, err := s.Confirm(t.Context(), h.ID, "p"); err != nil {
		t.Fatal(err)
	}
	if got := load(2, stockapi.SaleSKU{SKU: "A", Stock: 100}); got != stockapi.CodeBusy {
		t.Errorf("newer epoch with an undelivered outbox: %q", got)
	}
	if err := s.rdb.HSet(t.Context(), stockapi.MetaKey(s.cfg.Prefix, "E"), "pub", "1-3").Err(); err != nil {
		t.Fatal(err)
	}
	if got := load(2, stockapi.SaleSKU{SKU: "A", Stock: 100}); got != stockapi.CodeRowsDiffer {
		t.Errorf("newer epoch that forgets what was sold: %q", got)
	}
	if got := load(2, stockapi.SaleSKU{SKU: "B", Stock: 100}); got != stockapi.CodeRowsDiffer {
		t.Errorf("newer epoch that forgets a sku: %q", got)
	}
	if got := load(2, stockapi.SaleSKU{SKU: "A", Stock: 100, Sold: 2}); got != "" {
		t.Errorf("newer epoch of a cell at rest: %q", got)
	}
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Avail: 100, Sold: 2, Loaded: 102}); got != want {
		t.Errorf("counters=%+v, want %+v", got, want)
	}
}

func TestService_RefusesClientThatRepeatsScripts(t *testing.T) {
	opt := clientOptions(t)
	opt.MaxRetries = 0 // go-redis's default: 3
	rdb := redis.NewClient(opt)
	defer func() { _ = rdb.Close() }()
	if _, err := stockapi.New(stockapi.Config{}, stockapi.Deps{Redis: rdb}); err == nil {
		t.Fatal("a client with retries was accepted")
	}
}
