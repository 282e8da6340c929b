package stockapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// problem is a problem document of RFC 9457. Its type is a relative URI whose last
// part is a Code; clients branch on it and never on title or detail.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`

	SKU        string     `json:"sku,omitempty"`
	Left       *int64     `json:"left,omitempty"`
	Rule       string     `json:"rule,omitempty"`
	Used       *int64     `json:"used,omitempty"`
	Max        *int64     `json:"max,omitempty"`
	SellableAt *time.Time `json:"sellable_at,omitempty"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`

	retryAfter int // seconds; 0 for none
}

var errTooLarge = errors.New("body too large")

func problemType(code string) string { return "/problems/" + code }

// statuses of the refusals.
var statuses = map[Code]int{
	CodeSoldOut: http.StatusConflict, CodeAllHeld: http.StatusConflict, CodeLimit: http.StatusConflict,
	CodeNotYet: http.StatusForbidden, CodeEnded: http.StatusForbidden,
	CodeFrozen: http.StatusServiceUnavailable, CodeBackpressure: http.StatusServiceUnavailable,
	CodeUnavailable: http.StatusServiceUnavailable, CodeEpoch: http.StatusConflict, CodeUnknownEvent: http.StatusNotFound, CodeUnknownSKU: http.StatusNotFound,
	CodeKeyReused: http.StatusUnprocessableEntity, CodeHoldNotFound: http.StatusNotFound,
	CodeHoldExpired: http.StatusGone, CodeHoldCancelled: http.StatusConflict, CodeAlreadyConfirmed: http.StatusConflict,
	CodeStale: http.StatusConflict, CodeBusy: http.StatusConflict, CodeRowsDiffer: http.StatusConflict,
}

// retrySeconds is what Retry-After says for 503: the outbox and a freeze move within
// a second or so.
const retrySeconds = 1

func writeError(w http.ResponseWriter, err error) {
	if r, ok := errors.AsType[*RefusalError](err); ok {
		writeProblem(w, refusalProblem(r))
		return
	}
	switch {
	case errors.Is(err, ErrInvalid):
		writeProblem(w, problem{Type: problemType("invalid-request"), Status: http.StatusBadRequest, Detail: err.Error()})
	case errors.Is(err, errTooLarge):
		writeProblem(w, problem{Type: problemType("body-too-large"), Status: http.StatusRequestEntityTooLarge})
	case errors.Is(err, ErrUnknownOutcome):
		// Not a failure: the hold may be there. The same key finds it.
		writeProblem(w, problem{
			Type: problemType("busy"), Status: http.StatusServiceUnavailable, retryAfter: retrySeconds,
			Detail: "the outcome is not known; repeat the request with the same key, it happens at most once",
		})
	default:
		writeProblem(w, problem{Type: problemType("internal"), Status: http.StatusInternalServerError})
	}
}

func refusalProblem(r *RefusalError) problem {
	status, ok := statuses[r.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	p := problem{Type: problemType(string(r.Code)), Status: status, Detail: r.Error(), SKU: r.SKU, Rule: r.Rule}
	switch r.Code {
	case CodeSoldOut, CodeAllHeld:
		p.Left = &r.Left
	case CodeLimit:
		p.Used, p.Max = &r.Used, &r.Max
	case CodeNotYet:
		p.SellableAt = &r.At
	case CodeEnded:
		p.EndedAt = &r.At
	default: // the type says it all
	}
	if status == http.StatusServiceUnavailable {
		p.retryAfter = retrySeconds
	}
	return p
}

func writeProblem(w http.ResponseWriter, p problem) {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

func writeHold(w http.ResponseWriter, status int, h Hold) {
	if h.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	writeJSON(w, status, "application/json", viewOf(h))
}

func writeJSON(w http.ResponseWriter, status int, media string, body any) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone cannot be told
}
