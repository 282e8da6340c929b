package stockapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/stockapi"
)

// fixedStock answers everything alike.
type fixedStock struct {
	hold stockapi.Hold
	sku  stockapi.SKUStatus
	err  error
	got  *stockapi.HoldRequest
}

func (f fixedStock) Hold(_ context.Context, r stockapi.HoldRequest) (stockapi.Hold, error) {
	if f.got != nil {
		*f.got = r
	}
	return f.hold, f.err
}

func (f fixedStock) Confirm(context.Context, stockapi.HoldID, string) (stockapi.Hold, error) {
	return f.hold, f.err
}

func (f fixedStock) Cancel(context.Context, stockapi.HoldID, string) (stockapi.Hold, error) {
	return f.hold, f.err
}

func (f fixedStock) Lookup(context.Context, stockapi.HoldID) (stockapi.Hold, error) {
	return f.hold, f.err
}

func (f fixedStock) SKU(context.Context, string, string) (stockapi.SKUStatus, error) {
	return f.sku, f.err
}

const goodBody = `{"user_id":"u1","items":[{"sku":"A","qty":1}],"order_id":"o1","ttl_s":60}`

// reply is a recorded answer.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) problem(t *testing.T) map[string]any {
	t.Helper()
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("content type %q with %s", ct, r.body)
	}
	var p map[string]any
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func call(t *testing.T, h http.Handler, method, path, key, body string) reply {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{w.Code, w.Header(), string(b)}
}

func TestHTTP_EveryRefusalHasItsStatus(t *testing.T) {
	refuse := func(c stockapi.Code) error { return &stockapi.RefusalError{Code: c} }
	for _, tc := range []struct {
		err    error
		status int
		typ    string
	}{
		{refuse(stockapi.CodeSoldOut), 409, "sold-out"},
		{refuse(stockapi.CodeAllHeld), 409, "all-held"},
		{refuse(stockapi.CodeLimit), 409, "limit-exceeded"},
		{refuse(stockapi.CodeHoldCancelled), 409, "hold-cancelled"},
		{refuse(stockapi.CodeAlreadyConfirmed), 409, "already-confirmed"},
		{refuse(stockapi.CodeNotYet), 403, "not-yet-sellable"},
		{refuse(stockapi.CodeEnded), 403, "sale-ended"},
		{refuse(stockapi.CodeUnknownEvent), 404, "unknown-event"},
		{refuse(stockapi.CodeUnknownSKU), 404, "unknown-sku"},
		{refuse(stockapi.CodeHoldNotFound), 404, "hold-not-found"},
		{refuse(stockapi.CodeHoldExpired), 410, "hold-expired"},
		{refuse(stockapi.CodeKeyReused), 422, "key-reused"},
		{refuse(stockapi.CodeFrozen), 503, "frozen"},
		{refuse(stockapi.CodeBackpressure), 503, "backpressure"},
		{refuse(stockapi.CodeUnavailable), 503, "unavailable"},
		{refuse(stockapi.CodeEpoch), 409, "epoch-changed"},
		{fmt.Errorf("x: %w", stockapi.ErrInvalid), 400, "invalid-request"},
		{fmt.Errorf("x: %w", stockapi.ErrUnknownOutcome), 503, "busy"},
		{errors.New("anything else"), 500, "internal"},
	} {
		t.Run(tc.typ, func(t *testing.T) {
			h := stockapi.NewHandler(fixedStock{err: fmt.Errorf("hold: %w", tc.err)}, stockapi.HandlerOptions{})
			r := call(t, h, "POST", "/v1/events/E/holds", "k", goodBody)
			p := r.problem(t)
			if r.status != tc.status || p["type"] != "/problems/"+tc.typ || p["status"] != float64(tc.status) {
				t.Fatalf("status=%d problem=%v, want %d %s", r.status, p, tc.status, tc.typ)
			}
			if got := r.header.Get("Retry-After") != ""; got != (tc.status == 503) {
				t.Fatalf("Retry-After is %q with status %d", r.header.Get("Retry-After"), tc.status)
			}
		})
	}
}

func TestHTTP_ProblemsCarryWhatTheBuyerNeeds(t *testing.T) {
	at := time.Date(2026, 11, 11, 10, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		err   stockapi.RefusalError
		field string
		want  any
	}{
		{stockapi.RefusalError{Code: stockapi.CodeNotYet, At: at}, "sellable_at", "2026-11-11T10:00:00Z"},
		{stockapi.RefusalError{Code: stockapi.CodeEnded, At: at}, "ended_at", "2026-11-11T10:00:00Z"},
		{stockapi.RefusalError{Code: stockapi.CodeLimit, Rule: "day", Used: 0, Max: 2}, "used", 0.0},
		{stockapi.RefusalError{Code: stockapi.CodeLimit, Rule: "day", Used: 0, Max: 2}, "rule", "day"},
		{stockapi.RefusalError{Code: stockapi.CodeSoldOut, SKU: "A", Left: 0}, "left", 0.0},
	} {
		h := stockapi.NewHandler(fixedStock{err: &tc.err}, stockapi.HandlerOptions{})
		if got := call(t, h, "POST", "/v1/events/E/holds", "k", goodBody).problem(t)[tc.field]; got != tc.want {
			t.Errorf("%s: %s=%v, want %v", tc.err.Code, tc.field, got, tc.want)
		}
	}
}

func TestHTTP_BadRequestsNeverReachTheStock(t *testing.T) {
	const holds = "/v1/events/E/holds"
	for _, tc := range []struct {
		name, method, path, key, body string
		status                        int
	}{
		{"no key", "POST", holds, "", goodBody, 400},
		{"no body", "POST", holds, "k", "", 400},
		{"not JSON", "POST", holds, "k", "{", 400},
		{"unknown field", "POST", holds, "k", `{"user":"u"}`, 400},
		{"two values", "POST", holds, "k", goodBody + goodBody, 400},
		{"ttl", "POST", holds, "k", `{"user_id":"u","ttl_s":-1}`, 400},
		{"ttl that overflows", "POST", holds, "k", `{"user_id":"u","ttl_s":9223372036854775807}`, 400},
		{"too large", "POST", holds, "k", `{"user_id":"` + strings.Repeat("u", 2000) + `"}`, 413},
		{"not a hold id", "POST", "/v1/holds/x/confirm", "", "", 404},
		{"method", "DELETE", holds, "k", "", 405},
		{"path", "GET", "/v1/nothing", "", "", 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stock := fixedStock{err: errors.New("reached")}
			h := stockapi.NewHandler(stock, stockapi.HandlerOptions{MaxBody: 1000})
			if r := call(t, h, tc.method, tc.path, tc.key, tc.body); r.status != tc.status {
				t.Fatalf("status=%d, want %d: %s", r.status, tc.status, r.body)
			}
		})
	}
}

func TestHTTP_HoldPassesTheRequestAndShowsTheHold(t *testing.T) {
	id, err := stockapi.ParseHoldID("E.0.abcdefghijklmnopqrstuvwx23")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 11, 10, 0, 0, 0, time.UTC)
	var got stockapi.HoldRequest
	stock := fixedStock{got: &got, hold: stockapi.Hold{
		ID: id, State: stockapi.StateHeld, User: "u1", Items: []stockapi.Item{{SKU: "A", Qty: 1}},
		Seq: 7, At: at, ExpiresAt: at.Add(time.Minute), Replayed: true,
	}}
	h := stockapi.NewHandler(stock, stockapi.HandlerOptions{Client: func(*http.Request) string { return "shop" }})
	r := call(t, h, "POST", "/v1/events/E/holds", "key-1", goodBody)
	want := `{"hold_id":"E.0.abcdefghijklmnopqrstuvwx23","state":"held","user_id":"u1","items":[{"sku":"A","qty":1}],` +
		`"at":"2026-11-11T10:00:00Z","expires_at":"2026-11-11T10:01:00Z","seq":7,"durability":"redis"}` + "\n"
	if r.status != 201 || r.body != want || r.header.Get("Idempotency-Replayed") != "true" || r.header.Get("Location") != "/v1/holds/"+id.String() {
		t.Errorf("reply %d %v %s, want 201 %s", r.status, r.header, r.body, want)
	}
	if got.Client != "shop" || got.Event != "E" || got.User != "u1" || got.Key != "key-1" || got.TTL != time.Minute || got.Order != "o1" {
		t.Errorf("request %+v", got)
	}
}

func TestHTTP_SKUAndHealth(t *testing.T) {
	stock := fixedStock{sku: stockapi.SKUStatus{Phase: stockapi.PhaseSellable, Band: stockapi.BandFew, AsOfSeq: 9}}
	sick := errors.New("redis is away")
	h := stockapi.NewHandler(stock, stockapi.HandlerOptions{Health: func(context.Context) error { return sick }})
	if r := call(t, h, "GET", "/v1/events/E/skus/A", "", ""); r.body != `{"phase":"sellable","band":"few","as_of_seq":9,"stale_ms":0}`+"\n" {
		t.Errorf("sku: %d %s", r.status, r.body)
	}
	if r := call(t, h, "GET", "/healthz", "", ""); r.status != 503 {
		t.Errorf("health of a sick service: %d", r.status)
	}
	h = stockapi.NewHandler(stock, stockapi.HandlerOptions{})
	if r := call(t, h, "GET", "/healthz", "", ""); r.status != 200 {
		t.Errorf("health: %d", r.status)
	}
}
