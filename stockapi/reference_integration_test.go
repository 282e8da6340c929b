//go:build integration

package stockapi_test

import (
	"maps"

	"github.com/rowtide/rowtide/stockapi"
)

// reference is the scripts' meaning in plain Go: one event, no network, no clock.
type reference struct {
	epoch, seq int64
	mode       string
	notYet     bool
	outboxMax  int64
	skus       map[string]stockapi.Counters
	used       map[string]map[string]int64 // user -> limit field -> units
	holds      map[string]*refHold         // idempotency key and user -> hold
	last       *stockapi.Event             // the newest event's type, hold and items
}

type refHold struct {
	id      stockapi.HoldID
	req     stockapi.HoldRequest
	state   stockapi.State
	seq     int64
	endSeq  int64
	ref     string
	charged map[string]int64
	short   bool // its deadline is a matter of milliseconds
}

// answer is what one operation replies, as far as both sides can know it.
type answer struct {
	code     stockapi.Code
	state    stockapi.State
	seq      int64
	replayed bool
}

const (
	refMaxEvent = 6 // rule ev, per user and event
	refMaxSKU   = 3 // rule sku, per user and SKU, for A only
)

// charges are the limit fields of a request and their maxima.
func charges(items []stockapi.Item) (n, limit map[string]int64) {
	n, limit = make(map[string]int64), make(map[string]int64)
	for _, it := range items {
		n["ev"] += it.Qty
		limit["ev"] = refMaxEvent
		if it.SKU == "A" {
			n["sku:A"], limit["sku:A"] = it.Qty, refMaxSKU
		}
	}
	return n, limit
}

func sameItems(a, b []stockapi.Item) bool {
	m := func(items []stockapi.Item) map[string]int64 {
		out := make(map[string]int64)
		for _, it := range items {
			out[it.SKU] = it.Qty
		}
		return out
	}
	return maps.Equal(m(a), m(b))
}

func (r *reference) hold(id stockapi.HoldID, req stockapi.HoldRequest) answer {
	if h := r.holds[req.User+"/"+req.Key]; h != nil {
		if !sameItems(h.req.Items, req.Items) || h.req.TTL != req.TTL {
			return answer{code: stockapi.CodeKeyReused}
		}
		return answer{state: stockapi.StateHeld, seq: h.seq, replayed: true}
	}
	switch {
	case req.Epoch != 0 && req.Epoch != r.epoch:
		return answer{code: stockapi.CodeEpoch}
	case r.mode != "O":
		return answer{code: stockapi.CodeFrozen}
	case r.notYet:
		return answer{code: stockapi.CodeNotYet}
	case r.seq >= r.outboxMax:
		return answer{code: stockapi.CodeBackpressure}
	}
	n, limit := charges(req.Items)
	for f := range n {
		if r.used[req.User][f]+n[f] > limit[f] {
			return answer{code: stockapi.CodeLimit}
		}
	}
	if code := r.short(req.Items); code != "" {
		return answer{code: code}
	}
	r.seq++
	for _, it := range req.Items {
		r.move(it, -it.Qty, it.Qty, 0)
	}
	if r.used[req.User] == nil {
		r.used[req.User] = make(map[string]int64)
	}
	for f := range n {
		r.used[req.User][f] += n[f]
	}
	h := &refHold{id: id, req: req, state: stockapi.StateHeld, seq: r.seq, charged: n}
	r.holds[req.User+"/"+req.Key] = h
	r.note(stockapi.EventHold, h)
	return answer{state: stockapi.StateHeld, seq: r.seq}
}

// short looks at the items in the order of their SKUs, as the API sorts them.
func (r *reference) short(items []stockapi.Item) stockapi.Code {
	for _, sku := range []string{"A", "B", "C", "Z"} {
		for _, it := range items {
			if it.SKU != sku {
				continue
			}
			c, ok := r.skus[sku]
			switch {
			case !ok:
				return stockapi.CodeUnknownSKU
			case c.Avail >= it.Qty:
			case c.Avail+c.Held >= it.Qty:
				return stockapi.CodeAllHeld
			default:
				return stockapi.CodeSoldOut
			}
		}
	}
	return ""
}

func (r *reference) move(it stockapi.Item, avail, held, sold int64) {
	c := r.skus[it.SKU]
	c.Avail, c.Held, c.Sold = c.Avail+avail, c.Held+held, c.Sold+sold
	r.skus[it.SKU] = c
}

func (r *reference) confirm(h *refHold, payment string) answer {
	switch h.state {
	case stockapi.StateConfirmed:
		if h.ref == payment {
			return answer{state: h.state, seq: h.endSeq, replayed: true}
		}
		return answer{code: stockapi.CodeAlreadyConfirmed}
	case stockapi.StateCancelled:
		return answer{code: stockapi.CodeHoldCancelled}
	case stockapi.StateExpired:
		return answer{code: stockapi.CodeHoldExpired}
	case stockapi.StateHeld:
	}
	return r.end(h, stockapi.StateConfirmed, stockapi.EventConfirm, payment)
}

func (r *reference) cancel(h *refHold, reason string) answer {
	switch h.state {
	case stockapi.StateCancelled:
		return answer{state: h.state, seq: h.endSeq, replayed: true}
	case stockapi.StateConfirmed:
		return answer{code: stockapi.CodeAlreadyConfirmed}
	case stockapi.StateExpired:
		return answer{code: stockapi.CodeHoldExpired}
	case stockapi.StateHeld:
	}
	return r.end(h, stockapi.StateCancelled, stockapi.EventCancel, reason)
}

func (r *reference) end(h *refHold, to stockapi.State, kind stockapi.EventType, ref string) answer {
	if r.mode == "F" {
		return answer{code: stockapi.CodeFrozen}
	}
	r.seq++
	for _, it := range h.req.Items {
		if to == stockapi.StateConfirmed {
			r.move(it, 0, -it.Qty, it.Qty)
		} else {
			r.move(it, it.Qty, -it.Qty, 0)
		}
	}
	if to != stockapi.StateConfirmed {
		for f, n := range h.charged {
			if r.used[h.req.User][f] -= n; r.used[h.req.User][f] == 0 {
				delete(r.used[h.req.User], f)
			}
		}
	}
	h.state, h.endSeq, h.ref = to, r.seq, ref
	r.note(kind, h)
	return answer{state: to, seq: r.seq}
}

func (r *reference) note(kind stockapi.EventType, h *refHold) {
	r.last = &stockapi.Event{Seq: r.seq, Type: kind, Hold: h.id.Hash, User: h.req.User}
	for _, it := range h.req.Items {
		r.last.Items = append(r.last.Items, stockapi.EventItem{SKU: it.SKU, Qty: it.Qty, AvailAfter: r.skus[it.SKU].Avail})
	}
}
