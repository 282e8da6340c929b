package stockapi

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// EventVersion is the schema version of what the relay writes. A reader refuses a
// higher one instead of guessing.
const EventVersion = 1

// EventType says what happened.
type EventType string

// The event types, as they stand in JSON.
const (
	EventLoad    EventType = "load"    // the cell was installed; items carry avail_after and sold
	EventHold    EventType = "hold"    // available -> held
	EventConfirm EventType = "confirm" // held -> sold
	EventCancel  EventType = "cancel"  // held -> available, by the buyer or the shop
	EventExpire  EventType = "expire"  // held -> available, by the deadline
)

// Batch is one Kafka record: a run of events of one cell and epoch whose sequence
// numbers are dense and ascending. A record holds a run rather than one event so
// that a run is stored whole or not at all: no client library, however it splits
// and retries its requests, can then put a later event before an earlier one.
// Runs may overlap runs sent before; readers drop what is not above the last
// sequence they applied.
//
// The record's key is "event:cell". The value is JSON, see testdata/batch.json:
//
//	v       schema version, EventVersion
//	event   event id                    cell    cell number
//	epoch   lineage of the cell; sequences start at 1 in each
//	events  see Event
type Batch struct {
	Version int     `json:"v"`
	Event   string  `json:"event"`
	Cell    int     `json:"cell"`
	Epoch   int64   `json:"epoch"`
	Events  []Event `json:"events"`
}

// Event is one change of a cell. Times are milliseconds since 1970 by the clock of
// Redis.
type Event struct {
	// Seq is dense per cell and epoch.
	Seq  int64     `json:"seq"`
	Type EventType `json:"type"`
	// Hold and User are empty for a load.
	Hold  string      `json:"hold,omitempty"`
	User  string      `json:"uid,omitempty"`
	Items []EventItem `json:"items"`
	// Deadline is when the hold ends for the buyer.
	Deadline int64  `json:"deadline,omitempty"`
	Order    string `json:"order,omitempty"`
	// Ref is the payment reference of a confirm, the reason of a cancel or expire.
	Ref string `json:"ref,omitempty"`
	// RedisMS is when it happened.
	RedisMS int64 `json:"redis_ms"`
	// Load is set for a load only.
	Load *EventLoadInfo `json:"load,omitempty"`
}

// EventItem is one SKU's part of an event.
type EventItem struct {
	SKU string `json:"sku"`
	// Qty is how many units moved; for a load, how many are for sale.
	Qty int64 `json:"q"`
	// AvailAfter is the available quantity right after the event: what MySQL must
	// hold once it has applied it.
	AvailAfter int64 `json:"avail_after"`
	// Sold is how many were sold before a load.
	Sold int64 `json:"sold,omitempty"`
}

// EventLoadInfo is the sale's window and layout. An EndAt of 0 means no end.
type EventLoadInfo struct {
	VisibleAt  int64 `json:"visible_at"`
	SellableAt int64 `json:"sellable_at"`
	EndAt      int64 `json:"end_at"`
	Cells      int   `json:"cells"`
}

// CellID is the cell that the batch belongs to.
func (b Batch) CellID() Cell { return Cell{Event: b.Event, N: b.Cell} }

// EncodeBatch is the record value of b.
func EncodeBatch(b Batch) ([]byte, error) {
	b.Version = EventVersion
	if err := b.validate(); err != nil {
		return nil, err
	}
	return json.Marshal(b)
}

// DecodeBatch reads a record value. It returns ErrBadEvent for anything that it
// does not understand completely: unknown fields are allowed (added within a
// version), unknown types and versions are not.
func DecodeBatch(value []byte) (Batch, error) {
	var b Batch
	if err := json.NewDecoder(bytes.NewReader(value)).Decode(&b); err != nil {
		return Batch{}, fmt.Errorf("%w: %w", ErrBadEvent, err)
	}
	if b.Version != EventVersion {
		return Batch{}, fmt.Errorf("%w: schema version %d, this reader knows %d", ErrBadEvent, b.Version, EventVersion)
	}
	return b, b.validate()
}

func (b Batch) validate() error {
	if !validEvent(b.Event) || b.Cell < 0 || b.Epoch < 1 || len(b.Events) == 0 {
		return fmt.Errorf("%w: batch of %q cell %d epoch %d with %d events", ErrBadEvent, b.Event, b.Cell, b.Epoch, len(b.Events))
	}
	for i, e := range b.Events {
		if e.Seq != b.Events[0].Seq+int64(i) {
			return fmt.Errorf("%w: seq %d at place %d of a run from %d", ErrBadEvent, e.Seq, i, b.Events[0].Seq)
		}
		if err := e.validate(); err != nil {
			return fmt.Errorf("seq %d: %w", e.Seq, err)
		}
	}
	return nil
}

func (e Event) validate() error {
	switch e.Type {
	case EventLoad:
		if e.Seq != 1 || e.Load == nil {
			return fmt.Errorf("%w: a load is the first event of its epoch and carries the window", ErrBadEvent)
		}
	case EventHold, EventConfirm, EventCancel, EventExpire:
		if e.Seq < 2 || !validHash(e.Hold) || !validID(e.User) {
			return fmt.Errorf("%w: %s of hold %q by %q", ErrBadEvent, e.Type, e.Hold, e.User)
		}
	default:
		return fmt.Errorf("%w: type %q", ErrBadEvent, e.Type)
	}
	if len(e.Items) == 0 {
		return fmt.Errorf("%w: %s without items", ErrBadEvent, e.Type)
	}
	seen := make(map[string]bool, len(e.Items))
	for _, it := range e.Items {
		if !validID(it.SKU) || seen[it.SKU] || it.Qty < 0 || it.AvailAfter < 0 || it.Sold < 0 || (it.Qty == 0 && e.Type != EventLoad) {
			return fmt.Errorf("%w: item %+v", ErrBadEvent, it)
		}
		seen[it.SKU] = true
	}
	return nil
}
