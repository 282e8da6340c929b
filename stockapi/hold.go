package stockapi

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is where a hold stands.
type State string

// The states of a hold.
const (
	StateHeld      State = "held"
	StateConfirmed State = "confirmed"
	StateCancelled State = "cancelled"
	StateExpired   State = "expired"
)

// stateOf maps the letters of the packed record.
var stateOf = map[string]State{"H": StateHeld, "C": StateConfirmed, "X": StateCancelled, "E": StateExpired}

// Item is a quantity of one SKU.
type Item struct {
	SKU string `json:"sku"`
	Qty int64  `json:"qty"`
}

// HoldRequest asks for all items or none.
type HoldRequest struct {
	// Client scopes the idempotency key: who calls the API. May be empty.
	Client string
	Event  string
	User   string
	// Key is the idempotency key: the same key with the same request is the same
	// hold, for as long as the hold lives and Config.Retention after it.
	Key string
	// Items, at most 32 different SKUs.
	Items []Item
	// TTL until the deadline. Defaults to Config.HoldTTL.
	TTL time.Duration
	// Order is carried along to MySQL. May be empty.
	Order string
	// Epoch that the caller counts on; 0 takes any.
	Epoch int64
}

// Hold is a hold as one operation left it, or as it stands now (Lookup).
type Hold struct {
	ID    HoldID
	State State
	User  string
	Items []Item
	Order string
	// Seq is the sequence number of the event that reached this State.
	Seq int64
	// At is when this State was reached, ExpiresAt the deadline that the buyer was
	// shown; both by the clock of Redis.
	At        time.Time
	ExpiresAt time.Time
	// Ref is the payment reference of a confirm, the reason of a cancel or expire.
	Ref string
	// Replayed tells that this is the first answer again: nothing was changed now.
	Replayed bool
}

// normalize validates r and sorts its items, so that the order in which a client
// lists them does not make another request of it.
func (r HoldRequest) normalize(cfg Config) (HoldRequest, error) {
	bad := func(format string, args ...any) (HoldRequest, error) {
		return HoldRequest{}, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	switch {
	case !validEvent(r.Event):
		return bad("event %q", r.Event)
	case !validID(r.User):
		return bad("user id %q", r.User)
	case r.Client != "" && !validID(r.Client):
		return bad("client %q", r.Client)
	case r.Order != "" && !validID(r.Order):
		return bad("order id %q", r.Order)
	case r.Key == "" || len(r.Key) > 255:
		return bad("an idempotency key of 1 to 255 bytes is required")
	case len(r.Items) == 0 || len(r.Items) > maxItems:
		return bad("between 1 and %d items are required, not %d", maxItems, len(r.Items))
	case r.Epoch < 0:
		return bad("epoch %d", r.Epoch)
	}
	if r.TTL == 0 {
		r.TTL = cfg.HoldTTL
	}
	if r.TTL < time.Millisecond || r.TTL > cfg.MaxHoldTTL {
		return bad("ttl %s: at most %s", r.TTL, cfg.MaxHoldTTL)
	}
	r.Items = slices.Clone(r.Items)
	slices.SortFunc(r.Items, func(a, b Item) int { return strings.Compare(a.SKU, b.SKU) })
	for i, it := range r.Items {
		if !validID(it.SKU) {
			return bad("sku %q", it.SKU)
		}
		if it.Qty < 1 || it.Qty > maxUnits {
			return bad("quantity %d of sku %s", it.Qty, it.SKU)
		}
		if i > 0 && it.SKU == r.Items[i-1].SKU {
			return bad("sku %s is listed twice", it.SKU)
		}
	}
	return r, nil
}

// print is the fingerprint of what was asked for; r is normalized. The TTL counts as
// the request said it, so that a changed default does not make retries differ. The
// epoch does not count: a client that learns of a new one still retries its request.
func (r HoldRequest) print(asked time.Duration) string {
	return fingerprint(packItems(r.Items), r.Order, asked.String())
}

func packItems(items []Item) string {
	var b strings.Builder
	for i, it := range items {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(it.SKU + "," + itoa(it.Qty))
	}
	return b.String()
}

// record is the packed hold; the fields are those of prelude.lua.
type record struct {
	state                   State
	user, order, ref        string
	items                   []Item
	seq, endSeq             int64
	deadline, heldAt, endAt int64
}

const recordFields = 13

func parseRecord(s string) (record, error) {
	f := strings.Split(s, "|")
	if len(f) != recordFields {
		return record{}, fmt.Errorf("read hold record: %d fields, want %d", len(f), recordFields)
	}
	var r fieldReader
	rec := record{
		state: stateOf[f[0]], user: f[2], ref: f[11], order: f[12],
		seq: r.parse(f[5]), deadline: r.parse(f[6]), heldAt: r.parse(f[8]),
		endSeq: r.parse(f[9]), endAt: r.parse(f[10]),
	}
	for _, row := range rowsOf(f[3]) {
		rec.items = append(rec.items, Item{SKU: row[0], Qty: r.at(row, 1)})
	}
	if rec.state == "" {
		return record{}, fmt.Errorf("read hold record: state %q", f[0])
	}
	return rec, r.err
}

// held is the answer that the HOLD gave, whatever became of the hold since: a
// repeated request gets the first answer again.
func (r record) held(id HoldID) Hold {
	return Hold{
		ID: id, State: StateHeld, User: r.user, Items: r.items, Order: r.order,
		Seq: r.seq, At: time.UnixMilli(r.heldAt).UTC(), ExpiresAt: time.UnixMilli(r.deadline).UTC(),
	}
}

// now is the hold as it stands.
func (r record) now(id HoldID) Hold {
	h := r.held(id)
	if r.state != StateHeld {
		h.State, h.Ref, h.Seq, h.At = r.state, r.ref, r.endSeq, time.UnixMilli(r.endAt).UTC()
	}
	return h
}
