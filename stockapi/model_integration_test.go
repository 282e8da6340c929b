//go:build integration

package stockapi_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide/stockapi"
)

// TestScripts_BehaveLikeTheReference drives the real scripts and the reference with
// the same operations and compares every reply, and after every operation all
// counters, limits and the newest event.
func TestScripts_BehaveLikeTheReference(t *testing.T) {
	rdb := newRedis(t)
	base := newShopOn(t, rdb, stockapi.Config{})
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &machine{
			t: t, event: "E" + strconv.Itoa(run),
			ref: &reference{
				epoch: 1, seq: 1, mode: "O", outboxMax: 25,
				skus: make(map[string]stockapi.Counters), used: make(map[string]map[string]int64), holds: make(map[string]*refHold),
			},
		}
		m.shop = newShopOn(t, rdb, stockapi.Config{
			Prefix: base.cfg.Prefix + "." + strconv.Itoa(run), Grace: -1, OutboxMax: 25, OutboxKeep: 1,
			Limits: []stockapi.LimitRule{
				{ID: "ev", Per: []string{"user", "event"}, Max: refMaxEvent},
				{ID: "sku", Match: stockapi.LimitMatch{SKU: "A"}, Per: []string{"user", "sku"}, Max: refMaxSKU},
			},
		})
		sale := stockapi.Sale{Event: m.event, Epoch: 1}
		for _, sku := range []string{"A", "B", "C"} {
			n := rapid.Int64Range(0, 8).Draw(rt, "stock "+sku)
			m.ref.skus[sku] = stockapi.Counters{Avail: n, Loaded: n}
			sale.SKUs = append(sale.SKUs, stockapi.SaleSKU{SKU: sku, Stock: n})
		}
		m.sale = sale
		if err := m.shop.Load(t.Context(), sale); err != nil {
			rt.Fatal(err)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"hold": m.hold, "retry": m.retry, "confirm": m.confirm, "cancel": m.cancel,
			"expire": m.expire, "lookup": m.lookup, "mode": m.mode, "window": m.window, "load": m.load, "": m.check,
		})
	})
}

type machine struct {
	t     *testing.T
	event string
	shop  *shop
	ref   *reference
	sale  stockapi.Sale
}

func (m *machine) compare(rt *rapid.T, op string, h stockapi.Hold, err error, want answer) {
	rt.Helper()
	got := answer{code: stockapi.RefusalCode(err), state: h.State, seq: h.Seq, replayed: h.Replayed}
	if err != nil && got.code == "" {
		rt.Fatalf("%s: %v", op, err)
	}
	if got != want {
		rt.Fatalf("%s: redis replied %+v (%v), the reference %+v", op, got, err, want)
	}
}

func (m *machine) hold(rt *rapid.T) {
	req := stockapi.HoldRequest{
		Event: m.event,
		User:  rapid.SampledFrom([]string{"u1", "u2", "u3"}).Draw(rt, "user"),
		Key:   strconv.Itoa(rapid.IntRange(0, 30).Draw(rt, "key")),
		Epoch: rapid.SampledFrom([]int64{0, 0, 0, 1, 2}).Draw(rt, "epoch"),
	}
	if rapid.Bool().Draw(rt, "short") {
		req.TTL = time.Millisecond
	}
	skus := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"A", "B", "C", "A", "B", "C", "Z"}), 1, 3, rapid.ID[string]).Draw(rt, "skus")
	for _, sku := range skus {
		req.Items = append(req.Items, item(sku, rapid.Int64Range(1, 3).Draw(rt, "qty")))
	}
	m.ask(rt, req)
}

func (m *machine) retry(rt *rapid.T) {
	if h := m.any(rt); h != nil {
		m.ask(rt, h.req)
	}
}

func (m *machine) ask(rt *rapid.T, req stockapi.HoldRequest) {
	h, err := m.shop.Hold(m.t.Context(), req)
	m.compare(rt, "hold", h, err, m.ref.hold(h.ID, req))
	if ref := m.ref.holds[req.User+"/"+req.Key]; ref != nil {
		ref.short = ref.req.TTL == time.Millisecond
	}
}

// any picks a hold by chance; nil while there is none.
func (m *machine) any(rt *rapid.T) *refHold {
	if len(m.ref.holds) == 0 {
		return nil
	}
	return m.ref.holds[rapid.SampledFrom(slices.Sorted(maps.Keys(m.ref.holds))).Draw(rt, "hold")]
}

func (m *machine) confirm(rt *rapid.T) {
	if h := m.any(rt); h != nil {
		pay := rapid.SampledFrom([]string{"p1", "p2"}).Draw(rt, "payment")
		got, err := m.shop.Confirm(m.t.Context(), h.id, pay)
		m.compare(rt, "confirm", got, err, m.ref.confirm(h, pay))
	}
}

func (m *machine) cancel(rt *rapid.T) {
	if h := m.any(rt); h != nil {
		got, err := m.shop.Cancel(m.t.Context(), h.id, "mind")
		m.compare(rt, "cancel", got, err, m.ref.cancel(h, "mind"))
	}
}

// expire sweeps until every hold with a deadline of milliseconds has ended. The
// sweeper goes by deadline and then by hold id; only the order is taken from Redis.
func (m *machine) expire(rt *rapid.T) {
	due := make(map[string]*refHold)
	for _, h := range m.ref.holds {
		if h.short && h.state == stockapi.StateHeld {
			due[h.id.Hash] = h
		}
	}
	n := len(due)
	if m.ref.mode == "F" {
		n = 0
	}
	if n == 0 {
		if got, err := m.shop.Sweep(m.t.Context()); err != nil || got != 0 {
			rt.Fatalf("sweep expired %d (%v), the reference has nothing due", got, err)
		}
		return
	}
	before := m.ref.seq
	expireAll(m.t, m.shop, n)
	for _, e := range m.shop.outbox(m.t, m.event) {
		if e.Seq <= before {
			continue
		}
		h := due[e.Hold]
		if h == nil || e.Type != stockapi.EventExpire {
			rt.Fatalf("sweep made %+v", e)
		}
		if got := m.ref.end(h, stockapi.StateExpired, stockapi.EventExpire, "deadline"); got.seq != e.Seq {
			rt.Fatalf("sweep made seq %d, the reference %d", e.Seq, got.seq)
		}
	}
}

func (m *machine) lookup(rt *rapid.T) {
	if h := m.any(rt); h != nil {
		got, err := m.shop.Lookup(m.t.Context(), h.id)
		want := answer{state: h.state, seq: h.seq}
		if h.endSeq != 0 {
			want.seq = h.endSeq
		}
		m.compare(rt, "lookup", got, err, want)
	}
}

func (m *machine) mode(rt *rapid.T) {
	m.ref.mode = rapid.SampledFrom([]string{"O", "O", "F", "X"}).Draw(rt, "mode")
	m.set(rt, "mode", m.ref.mode)
}

func (m *machine) window(rt *rapid.T) {
	m.ref.notYet = rapid.SampledFrom([]bool{false, false, true}).Draw(rt, "not yet")
	m.set(rt, "sat", map[bool]string{false: "0", true: "99999999999999"}[m.ref.notYet])
}

func (m *machine) set(rt *rapid.T, field, value string) {
	key := stockapi.MetaKey(m.shop.cfg.Prefix, m.event)
	if err := m.shop.rdb.HSet(m.t.Context(), key, field, value).Err(); err != nil {
		rt.Fatal(err)
	}
}

// load is what a process that boots in the middle of the sale does.
func (m *machine) load(rt *rapid.T) {
	if err := m.shop.Load(m.t.Context(), m.sale); err != nil {
		rt.Fatalf("load the same sale again: %v", err)
	}
}

func (m *machine) check(rt *rapid.T) {
	snap, err := m.shop.Snapshot(m.t.Context(), m.event)
	if err != nil {
		rt.Fatal(err)
	}
	if !maps.Equal(snap.SKUs, m.ref.skus) {
		rt.Fatalf("counters: redis %+v, reference %+v", snap.SKUs, m.ref.skus)
	}
	live := int64(0)
	for _, h := range m.ref.holds {
		if h.state == stockapi.StateHeld {
			live++
		}
	}
	if snap.Seq != m.ref.seq || snap.Outbox != m.ref.seq || snap.Live != live {
		rt.Fatalf("redis: seq %d, outbox %d, live %d; reference: %d, %d", snap.Seq, snap.Outbox, snap.Live, m.ref.seq, live)
	}
	for _, u := range []string{"u1", "u2", "u3"} {
		got, err := m.shop.rdb.HGetAll(m.t.Context(), stockapi.UserKey(m.shop.cfg.Prefix, m.event, u)).Result()
		if err != nil {
			rt.Fatal(err)
		}
		want := make(map[string]string)
		for f, n := range m.ref.used[u] {
			want[f] = strconv.FormatInt(n, 10)
		}
		if !maps.Equal(got, want) {
			rt.Fatalf("limits of %s: redis %v, reference %v", u, got, want)
		}
	}
	if m.ref.last != nil {
		events := m.shop.outbox(m.t, m.event)
		if got, want := brief(events[len(events)-1]), brief(*m.ref.last); got != want {
			rt.Fatalf("newest event: redis %s, reference %s", got, want)
		}
	}
}

// brief is what both sides know of an event; items by SKU.
func brief(e stockapi.Event) string {
	items := make([]string, len(e.Items))
	for i, it := range e.Items {
		items[i] = fmt.Sprint(it)
	}
	slices.Sort(items)
	return fmt.Sprint(e.Seq, e.Type, e.Hold, e.User, strings.Join(items, " "))
}
