package stockapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// Stock is what the HTTP API needs of a Service.
type Stock interface {
	Hold(ctx context.Context, req HoldRequest) (Hold, error)
	Confirm(ctx context.Context, id HoldID, payment string) (Hold, error)
	Cancel(ctx context.Context, id HoldID, reason string) (Hold, error)
	Lookup(ctx context.Context, id HoldID) (Hold, error)
	SKU(ctx context.Context, event, sku string) (SKUStatus, error)
}

// HandlerOptions adapt the HTTP API to what stands in front of it.
type HandlerOptions struct {
	// Client names the caller of a request, the scope of its idempotency keys.
	// Defaults to the header X-Client-Id, which whatever authenticates sets.
	Client func(*http.Request) string
	// MaxBody of a request in bytes. Defaults to DefaultMaxBody.
	MaxBody int64
	// Health returns an error while the service cannot work. Defaults to none.
	Health func(context.Context) error
}

// NewHandler serves the HTTP API:
//
//	POST /v1/events/{event}/holds          201 hold; the header Idempotency-Key is required
//	GET  /v1/holds/{id}                    200 hold as it stands
//	POST /v1/holds/{id}/confirm            200 hold; {"pay_id": …}
//	POST /v1/holds/{id}/cancel             200 hold; {"reason": …}
//	GET  /v1/events/{event}/skus/{sku}     200 phase and band
//	GET  /healthz                          200 or 503
//
// A repeated request gets the status and the bytes of the first answer, and the
// header Idempotency-Replayed. Everything else is a problem document (RFC 9457)
// whose type ends in a Code. 503 comes with Retry-After; a "busy" one must be
// repeated with the same key, since the hold may be there.
func NewHandler(stock Stock, o HandlerOptions) http.Handler {
	if o.Client == nil {
		o.Client = func(r *http.Request) string { return r.Header.Get("X-Client-Id") }
	}
	if o.Health == nil {
		o.Health = func(context.Context) error { return nil }
	}
	o.MaxBody = or(o.MaxBody, DefaultMaxBody)
	a := api{stock: stock, opt: o}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/events/{event}/holds", a.hold)
	mux.HandleFunc("GET /v1/holds/{id}", a.lookup)
	mux.HandleFunc("POST /v1/holds/{id}/confirm", a.confirm)
	mux.HandleFunc("POST /v1/holds/{id}/cancel", a.cancel)
	mux.HandleFunc("GET /v1/events/{event}/skus/{sku}", a.sku)
	mux.HandleFunc("GET /healthz", a.health)
	return mux
}

type api struct {
	stock Stock
	opt   HandlerOptions
}

// holdBody is the body of POST holds.
type holdBody struct {
	User  string `json:"user_id"`
	Items []Item `json:"items"`
	Order string `json:"order_id"`
	// TTL in seconds; 0 for the default.
	TTL int64 `json:"ttl_s"`
}

// holdView is a hold in a reply. Every field is of the hold's record, so that the
// same request gets the same bytes however often it is repeated.
type holdView struct {
	ID        string    `json:"hold_id"`
	State     State     `json:"state"`
	User      string    `json:"user_id"`
	Items     []Item    `json:"items"`
	Order     string    `json:"order_id,omitempty"`
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expires_at"`
	Seq       int64     `json:"seq"`
	Ref       string    `json:"ref,omitempty"`
	// Durability is what the answer stands on: "redis", the outbox's server.
	Durability string `json:"durability"`
}

func viewOf(h Hold) holdView {
	return holdView{
		ID: h.ID.String(), State: h.State, User: h.User, Items: h.Items, Order: h.Order,
		At: h.At, ExpiresAt: h.ExpiresAt, Seq: h.Seq, Ref: h.Ref, Durability: "redis",
	}
}

func (a api) hold(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		writeProblem(w, problem{
			Type: problemType("key-missing"), Status: http.StatusBadRequest,
			Detail: "the header Idempotency-Key is required: one value per purchase, the same for its retries",
		})
		return
	}
	var body holdBody
	if err := a.read(w, r, &body, true); err != nil {
		writeError(w, err)
		return
	}
	if body.TTL < 0 || body.TTL > int64(24*time.Hour/time.Second) {
		writeError(w, fmt.Errorf("%w: ttl_s %d", ErrInvalid, body.TTL))
		return
	}
	h, err := a.stock.Hold(r.Context(), HoldRequest{
		Client: a.opt.Client(r), Event: r.PathValue("event"), User: body.User, Key: key,
		Items: body.Items, TTL: time.Duration(body.TTL) * time.Second, Order: body.Order,
	})
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Location", "/v1/holds/"+h.ID.String())
	writeHold(w, http.StatusCreated, h)
}

func (a api) confirm(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Payment string `json:"pay_id"`
	}
	a.end(w, r, &body, func(id HoldID) (Hold, error) { return a.stock.Confirm(r.Context(), id, body.Payment) })
}

func (a api) cancel(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Reason string `json:"reason"`
	}
	a.end(w, r, &body, func(id HoldID) (Hold, error) { return a.stock.Cancel(r.Context(), id, body.Reason) })
}

func (a api) lookup(w http.ResponseWriter, r *http.Request) {
	a.answer(w, r, func(id HoldID) (Hold, error) { return a.stock.Lookup(r.Context(), id) })
}

// end reads the body, which may be empty, and then answers.
func (a api) end(w http.ResponseWriter, r *http.Request, body any, do func(HoldID) (Hold, error)) {
	if err := a.read(w, r, body, false); err != nil {
		writeError(w, err)
		return
	}
	a.answer(w, r, do)
}

func (a api) answer(w http.ResponseWriter, r *http.Request, do func(HoldID) (Hold, error)) {
	id, err := ParseHoldID(r.PathValue("id"))
	if err != nil {
		// Whatever it is, it is not the id of a hold.
		writeError(w, &RefusalError{Code: CodeHoldNotFound})
		return
	}
	h, err := do(id)
	if err != nil {
		writeError(w, err)
		return
	}
	writeHold(w, http.StatusOK, h)
}

// skuView is the reply of the SKU route.
type skuView struct {
	Phase      Phase      `json:"phase"`
	VisibleAt  *time.Time `json:"visible_at,omitempty"`
	SellableAt *time.Time `json:"sellable_at,omitempty"`
	EndAt      *time.Time `json:"end_at,omitempty"`
	Band       Band       `json:"band"`
	AsOfSeq    int64      `json:"as_of_seq"`
	// StaleMS is 0: this version reads Redis each time.
	StaleMS int64 `json:"stale_ms"`
}

func (a api) sku(w http.ResponseWriter, r *http.Request) {
	s, err := a.stock.SKU(r.Context(), r.PathValue("event"), r.PathValue("sku"))
	if err != nil {
		writeError(w, err)
		return
	}
	opt := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	writeJSON(w, http.StatusOK, "application/json", skuView{
		Phase: s.Phase, VisibleAt: opt(s.VisibleAt), SellableAt: opt(s.SellableAt), EndAt: opt(s.EndAt),
		Band: s.Band, AsOfSeq: s.AsOfSeq,
	})
}

func (a api) health(w http.ResponseWriter, r *http.Request) {
	if err := a.opt.Health(r.Context()); err != nil {
		writeProblem(w, problem{Type: problemType("unhealthy"), Status: http.StatusServiceUnavailable, Detail: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, "application/json", map[string]string{"status": "ok"})
}

// read decodes a JSON body of bounded size with known fields only.
func (a api) read(w http.ResponseWriter, r *http.Request, into any, required bool) error {
	body := http.MaxBytesReader(w, r.Body, a.opt.MaxBody)
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return fmt.Errorf("%w: content type %q, want application/json", ErrInvalid, ct)
		}
	}
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if errors.Is(err, io.EOF) && !required {
		return nil
	}
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one JSON value")
		}
	}
	if _, big := errors.AsType[*http.MaxBytesError](err); big {
		return errTooLarge
	}
	if err != nil {
		return fmt.Errorf("%w: read body: %w", ErrInvalid, err)
	}
	return nil
}
