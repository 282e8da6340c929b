package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// purchases is what the buyers remember: it is held against the ledger in the
// end.
type purchases struct {
	accepted, soldOut, failed atomic.Int64

	mu    sync.Mutex
	holds map[string]purchase // by hold id
}

// purchase is one accepted hold and what the buyer did with it.
type purchase struct {
	sku string
	qty int64
	// want is the state it must end in: confirmed, cancelled, expired; "" when the
	// answer to the last request was lost, and either is right.
	want string
}

// buy is one buyer's seat: in the rush it buys as fast as it is served, otherwise
// it takes its share of a trickle.
func (s *shop) buy(ctx context.Context, seat int, l *loadState) {
	rng := rand.New(rand.NewPCG(31, uint64(seat)))
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2}}
	defer client.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		if !l.rush() {
			pause(ctx, time.Second*rushBuyers/calmBuyers)
		}
		if ctx.Err() == nil {
			// A purchase once begun is finished, also at the end of the run.
			s.purchase(context.WithoutCancel(ctx), client, rng, fmt.Sprintf("%d-%d", seat, i), l.buys)
		}
	}
}

// purchase holds one to three tickets; most buyers pay, some cancel, some walk
// away and let the hold expire.
func (s *shop) purchase(ctx context.Context, client *http.Client, rng *rand.Rand, key string, p *purchases) {
	k := saleSKUs[rng.IntN(len(saleSKUs))].sku
	qty := int64(1 + rng.IntN(3))
	body := map[string]any{"user_id": fmt.Sprintf("user-%d", rng.IntN(50_000)), "items": []map[string]any{{"sku": k, "qty": qty}}}
	var hold struct {
		ID string `json:"hold_id"`
	}
	code, err := s.post(ctx, client, "/v1/events/"+saleEvent+"/holds", key, body, &hold)
	if err == nil && rng.IntN(50) == 0 {
		// Impatient gateways repeat requests: it must be the same hold.
		code, err = s.post(ctx, client, "/v1/events/"+saleEvent+"/holds", key, body, &hold)
	}
	switch {
	case err != nil || code >= 500:
		p.failed.Add(1)
		return
	case code == http.StatusConflict:
		p.soldOut.Add(1) // or over the limit per user
		return
	case code != http.StatusCreated:
		p.failed.Add(1)
		return
	}
	p.accepted.Add(1)
	end := purchase{sku: k, qty: qty, want: "expired"}
	switch n := rng.IntN(100); {
	case n < 85:
		end.want = s.end(ctx, client, hold.ID, "confirm", "confirmed")
	case n < 95:
		end.want = s.end(ctx, client, hold.ID, "cancel", "cancelled")
	}
	p.mu.Lock()
	p.holds[hold.ID] = end
	p.mu.Unlock()
}

// end confirms or cancels and returns the state that the hold is in by the
// answer.
func (s *shop) end(ctx context.Context, client *http.Client, id, verb, state string) string {
	code, err := s.post(ctx, client, "/v1/holds/"+id+"/"+verb, "", map[string]any{}, nil)
	switch {
	case err != nil || code >= 500:
		return ""
	case code == http.StatusGone:
		return "expired"
	}
	return state
}

func (s *shop) post(ctx context.Context, client *http.Client, path, key string, body, into any) (int, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.stockAddr+path, bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if into != nil && resp.StatusCode < 300 {
		return resp.StatusCode, json.NewDecoder(resp.Body).Decode(into)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
