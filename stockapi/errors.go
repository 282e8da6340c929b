package stockapi

import (
	"errors"
	"fmt"
	"time"
)

// Each sentinel is a decision handed to the caller.
var (
	// ErrGap means that events of a cell are missing between the ledger's position
	// and what arrived. Nothing of the batch was applied. Stop and find the lost
	// events (the outbox keeps acknowledged ones for a while); skipping would make
	// stock vanish in silence.
	ErrGap = errors.New("events are missing")

	// ErrDivergence means that MySQL does not hold what the event's counter in
	// Redis says it must. Nothing of the batch was applied. Stop: something other
	// than the ledger wrote to the stock tables, or Redis lost writes and went on from
	// an older state, so that a sequence number was given twice.
	ErrDivergence = errors.New("ledger and counters differ")

	// ErrFenced means that an event of an older epoch arrived that was never
	// applied. Stop: a sale went on in an epoch that was over.
	ErrFenced = errors.New("event of an older epoch was never applied")

	// ErrBadEvent means that an event cannot be read or makes no sense. Stop; a
	// newer Rowtide may have written it.
	ErrBadEvent = errors.New("unreadable stock event")

	// ErrUnknownOutcome means that Redis did not answer, repeatedly: the operation
	// may or may not have happened. Repeat it with the same key; it happens at most
	// once. Never treat it as a failure.
	ErrUnknownOutcome = errors.New("outcome unknown")

	// ErrInvalid means that the request is malformed; nothing was asked of Redis.
	ErrInvalid = errors.New("invalid request")

	// ErrSchemaMissing means that the stock tables are not there. Call EnsureSchema.
	ErrSchemaMissing = errors.New("stock tables are missing")
)

// Code says why an operation was refused; it is the last path segment of the
// problem type that the HTTP API answers with, and a metric label.
type Code string

// The refusals.
const (
	CodeSoldOut          Code = "sold-out"          // not enough left, nothing held that could come back
	CodeAllHeld          Code = "all-held"          // not enough left, but holds may still come back
	CodeLimit            Code = "limit-exceeded"    // a purchase limit
	CodeNotYet           Code = "not-yet-sellable"  // before the window
	CodeEnded            Code = "sale-ended"        // after the window
	CodeFrozen           Code = "frozen"            // the cell takes no changes now
	CodeBackpressure     Code = "backpressure"      // the outbox is full: Kafka is away or slow
	CodeUnavailable      Code = "unavailable"       // Redis takes no writes now: loading, replica, memory full
	CodeEpoch            Code = "epoch-changed"     // the caller's view of the event is old
	CodeUnknownEvent     Code = "unknown-event"     // not loaded
	CodeUnknownSKU       Code = "unknown-sku"       // not part of the event
	CodeKeyReused        Code = "key-reused"        // same idempotency key, other body
	CodeHoldNotFound     Code = "hold-not-found"    // never there, or ended longer ago than the retention
	CodeHoldExpired      Code = "hold-expired"      // its units went back
	CodeHoldCancelled    Code = "hold-cancelled"    // its units went back
	CodeAlreadyConfirmed Code = "already-confirmed" // sold
	CodeStale            Code = "stale-load"        // LOAD: this epoch or a newer one is installed
	CodeBusy             Code = "cell-busy"         // LOAD: the cell is not at rest
	CodeRowsDiffer       Code = "rows-differ"       // LOAD: rows do not continue the cell's
)

// RefusalError is a definite "no": nothing was changed. The fields beside Code are
// set where they help the buyer.
type RefusalError struct {
	Code Code
	SKU  string
	// Left is the available quantity that was too small.
	Left int64
	// Rule, Used and Max describe the purchase limit that was hit.
	Rule      string
	Used, Max int64
	// At is the edge of the sale's window.
	At time.Time
	// Detail is for operators.
	Detail string
}

// Error is the code and what it is about.
func (e *RefusalError) Error() string {
	s := string(e.Code)
	switch {
	case e.Rule != "":
		s += fmt.Sprintf(" (rule %s: %d of %d used)", e.Rule, e.Used, e.Max)
	case e.SKU != "":
		s += fmt.Sprintf(" (sku %s: %d left)", e.SKU, e.Left)
	case e.Detail != "":
		s += " (" + e.Detail + ")"
	}
	return s
}

// RefusalCode is the code of a refusal anywhere in err's chain, or "".
func RefusalCode(err error) Code {
	if r, ok := errors.AsType[*RefusalError](err); ok {
		return r.Code
	}
	return ""
}
