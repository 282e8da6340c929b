//go:build integration

package stockapi_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/rowtide/rowtide/stockapi"
)

func TestHTTP_RepeatedRequestGetsTheSameBytes(t *testing.T) {
	s := newShop(t, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 1})
	h := stockapi.NewHandler(s, stockapi.HandlerOptions{})
	first := call(t, h, "POST", "/v1/events/E/holds", "k1", goodBody)
	if first.status != http.StatusCreated || first.header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("hold: %d %v %s", first.status, first.header, first.body)
	}
	var hold struct {
		ID string `json:"hold_id"`
	}
	if err := json.Unmarshal([]byte(first.body), &hold); err != nil {
		t.Fatal(err)
	}
	same := func(method, path, key, body string, want reply) {
		t.Helper()
		got := call(t, h, method, path, key, body)
		if got.status != want.status || got.body != want.body || got.header.Get("Idempotency-Replayed") != "true" {
			t.Fatalf("again: %d %v %s, want %d %s", got.status, got.header, got.body, want.status, want.body)
		}
	}
	same("POST", "/v1/events/E/holds", "k1", goodBody, first)
	confirm := "/v1/holds/" + hold.ID + "/confirm"
	sold := call(t, h, "POST", confirm, "", `{"pay_id":"p1"}`)
	if sold.status != http.StatusOK {
		t.Fatalf("confirm: %d %s", sold.status, sold.body)
	}
	same("POST", confirm, "", `{"pay_id":"p1"}`, sold)
	same("POST", "/v1/events/E/holds", "k1", goodBody, first)
	for _, tc := range []struct {
		method, path, key, body string
		status                  int
	}{
		{"POST", "/v1/events/E/holds", "k1", `{"user_id":"u1","items":[{"sku":"A","qty":2}]}`, 422},
		{"POST", "/v1/events/E/holds", "k2", goodBody, 409},
		{"POST", "/v1/events/F/holds", "k2", goodBody, 404},
		{"POST", "/v1/events/E/holds", "k2", `{"user_id":"u|1","items":[{"sku":"A","qty":1}]}`, 400},
		{"POST", confirm, "", `{"pay_id":"p2"}`, 409},
		{"POST", "/v1/holds/" + hold.ID + "/cancel", "", "", 409},
		{"GET", "/v1/holds/" + hold.ID, "", "", 200},
		{"GET", "/v1/holds/E.0.aaaaaaaaaaaaaaaaaaaaaaaaaa", "", "", 404},
		{"GET", "/v1/events/E/skus/A", "", "", 200},
		{"GET", "/v1/events/E/skus/Z", "", "", 404},
		{"GET", "/v1/events/F/skus/A", "", "", 404},
	} {
		if r := call(t, h, tc.method, tc.path, tc.key, tc.body); r.status != tc.status {
			t.Errorf("%s %s %s: %d %s, want %d", tc.method, tc.path, tc.body, r.status, r.body, tc.status)
		}
	}
}

func TestSKU_PhaseGoesByTheClockOfRedisAlone(t *testing.T) {
	s := newShop(t, stockapi.Config{FewLeft: 5})
	now := time.Now()
	for _, tc := range []struct {
		event         string
		vis, sat, end time.Duration
		stock         int64
		phase         stockapi.Phase
		band          stockapi.Band
		holdCode      stockapi.Code
	}{
		{"hidden", time.Hour, 2 * time.Hour, 0, 100, stockapi.PhaseHidden, stockapi.BandMany, stockapi.CodeNotYet},
		{"visible", -time.Hour, time.Hour, 0, 5, stockapi.PhaseVisible, stockapi.BandFew, stockapi.CodeNotYet},
		{"open", -time.Hour, -time.Hour, time.Hour, 0, stockapi.PhaseSellable, stockapi.BandNone, stockapi.CodeSoldOut},
		{"over", -time.Hour, -time.Hour, -time.Minute, 6, stockapi.PhaseEnded, stockapi.BandMany, stockapi.CodeEnded},
	} {
		sale := saleOf(tc.event, 1, map[string]int64{"A": tc.stock})
		sale.VisibleAt, sale.SellableAt = now.Add(tc.vis), now.Add(tc.sat)
		if tc.end != 0 {
			sale.EndAt = now.Add(tc.end)
		}
		if err := s.Load(t.Context(), sale); err != nil {
			t.Fatal(err)
		}
		st, err := s.SKU(t.Context(), tc.event, "A")
		if err != nil || st.Phase != tc.phase || st.Band != tc.band {
			t.Errorf("%s: %+v %v, want %s %s", tc.event, st, err, tc.phase, tc.band)
		}
		req := want("u", "k", item("A", 1))
		req.Event = tc.event
		if _, err := s.Hold(t.Context(), req); stockapi.RefusalCode(err) != tc.holdCode {
			t.Errorf("%s: hold: %v, want %s", tc.event, err, tc.holdCode)
		}
	}
}
