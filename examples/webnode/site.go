package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

// Event is a row of the event table, as the daemon renders it.
type Event struct {
	ID         int64     `json:"id"`
	Title      string    `json:"title"`
	VenueID    int64     `json:"venue_id"`
	VisibleAt  time.Time `json:"visible_at"`
	SellableAt time.Time `json:"sellable_at"`
}

// Venue is a row of the venue table.
type Venue struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	City string `json:"city"`
}

// Stock is what is left of one class of seats.
type Stock struct {
	Avail int64 `json:"avail"`
}

// Seats names a class of seats of an event.
type Seats struct {
	Event int64
	Class string
}

// classes of seats that every event has.
var classes = []string{"A", "B"}

// site reads three modules: events, without which no page can be shown, venues,
// without which it can, and the stock, which the daemon alone writes.
type site struct {
	cache  *localsync.Cache
	events *localsync.Module[int64, Event]
	venues *localsync.Module[int64, Venue]
	stock  *localsync.Module[Seats, Stock]
	front  *localsync.Module[string, []int64]
	now    func() time.Time
}

func newSite(cache *localsync.Cache, db *sql.DB) (*site, error) {
	s := &site{cache: cache, now: time.Now}
	var errs [4]error
	s.events, errs[0] = localsync.NewModule(cache, localsync.ModuleConfig[int64]{Name: "event"}, localsync.JSON[Event](),
		func(ctx context.Context, ids []int64) (map[int64]Event, error) {
			return query(ctx, db, "SELECT id, title, venue_id, visible_at, sellable_at FROM event WHERE id IN ", ids, scanEvent)
		})
	s.venues, errs[1] = localsync.NewModule(cache, localsync.ModuleConfig[int64]{Name: "venue", OnError: localsync.Optional}, localsync.JSON[Venue](),
		func(ctx context.Context, ids []int64) (map[int64]Venue, error) {
			return query(ctx, db, "SELECT id, name, city FROM venue WHERE id IN ", ids, scanVenue)
		})
	// No loader: what the daemon has not written is not on sale.
	s.stock, errs[2] = localsync.NewModule(cache, localsync.ModuleConfig[Seats]{
		Name: "stock_view", OnError: localsync.Optional,
		Key: func(k Seats) string { return fmt.Sprintf("%d:%s:0", k.Event, k.Class) }, // {event}:{sku}:{cell}
	}, localsync.JSON[Stock](), nil)
	// Which events there are is no row, so no change announces it: ages do. A visitor
	// never waits for it, one query per node and second is made behind the readers.
	s.front, errs[3] = localsync.NewModule(cache, localsync.ModuleConfig[string]{Name: "front", Refresh: time.Second}, localsync.JSON[[]int64](),
		func(ctx context.Context, _ []string) (map[string][]int64, error) {
			ids, err := newest(ctx, db)
			return map[string][]int64{"": ids}, err
		})
	return s, errors.Join(errs[:]...)
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.list)
	mux.HandleFunc("GET /events/{id}", s.ticket)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("/localsync/", s.cache.Handler()) // the cache's own page; not for visitors
	return mux
}

//go:embed pages.html
var pages string

var templates = template.Must(template.New("").Parse(pages))

// list shows the events on the front page.
func (s *site) list(w http.ResponseWriter, r *http.Request) {
	ids, err := s.front.Get(r.Context(), "")
	if err != nil {
		http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
		return
	}
	// All that is local costs nothing more, all the rest one round trip. Events that
	// cannot be read now are missing from the page, the others are not.
	events, err := s.events.GetMany(r.Context(), ids)
	var partial *localsync.PartialError[int64]
	if err != nil && !errors.As(err, &partial) {
		http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
		return
	}
	var shown []Event
	for _, id := range ids {
		if e, ok := events[id]; ok && !s.now().Before(e.VisibleAt) {
			shown = append(shown, e)
		}
	}
	render(w, "list", shown)
}

// page is one event as a visitor sees it.
type page struct {
	Event
	Venue    *Venue
	Sellable bool
	Stock    map[string]int64 // by class
}

// ticket shows an event and what is left of it.
func (s *site) ticket(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		http.Error(w, "an event's id is a number", http.StatusBadRequest)
		return
	}
	e, info, err := s.events.Lookup(r.Context(), id)
	now := s.now()
	switch {
	case errors.Is(err, localsync.ErrNotFound), err == nil && now.Before(e.VisibleAt):
		http.Error(w, "no such event", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
		return
	}
	// Nothing is written when the sale opens: the clock is read here.
	p := page{Event: e, Sellable: !now.Before(e.SellableAt), Stock: map[string]int64{}}
	if v, err := s.venues.Get(r.Context(), e.VenueID); err == nil {
		p.Venue = &v // without it the page is poorer, not broken
	}
	var seats []Seats
	for _, class := range classes {
		seats = append(seats, Seats{id, class})
	}
	left, _ := s.stock.GetMany(r.Context(), seats) // what cannot be read is not shown
	for k, v := range left {
		p.Stock[k.Class] = v.Avail
	}
	w.Header().Set("X-Rowtide", fmt.Sprintf("level=%s version=%s stale=%t degraded=%t", info.Level, info.Version, info.Stale, info.Degraded))
	render(w, "ticket", p)
}

func (s *site) ready(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.cache.Ready():
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "bus not positioned yet", http.StatusServiceUnavailable)
	}
}

func render(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := templates.ExecuteTemplate(w, name, data); err != nil {
		return // the visitor has gone; there is nobody left to tell
	}
}

// frontPage is how many events the front page shows.
const frontPage = 50

func newest(ctx context.Context, db *sql.DB) ([]int64, error) {
	rows, err := db.QueryContext(ctx, "SELECT id FROM event ORDER BY visible_at DESC, id LIMIT ?", frontPage)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	defer rows.Close()
	ids := []int64{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("scan event: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func scanEvent(rows *sql.Rows) (id int64, e Event, err error) {
	err = rows.Scan(&e.ID, &e.Title, &e.VenueID, &e.VisibleAt, &e.SellableAt)
	return e.ID, e, err
}

func scanVenue(rows *sql.Rows) (id int64, v Venue, err error) {
	err = rows.Scan(&v.ID, &v.Name, &v.City)
	return v.ID, v, err
}

// query reads the rows of the given ids. What is not in the map does not exist;
// whatever else goes wrong is an error, or the cache would remember it as absent.
func query[V any](
	ctx context.Context, db *sql.DB, text string, ids []int64, scan func(*sql.Rows) (int64, V, error),
) (map[int64]V, error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	rows, err := db.QueryContext(ctx, text+"(?"+strings.Repeat(",?", len(ids)-1)+")", args...)
	if err != nil {
		return nil, fmt.Errorf("query %d rows: %w", len(ids), err)
	}
	defer rows.Close()
	out := make(map[int64]V, len(ids))
	for rows.Next() {
		id, v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("scan row: %w", err)
		}
		out[id] = v
	}
	return out, rows.Err()
}
