package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
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

// site reads two modules: events, which no page can do without, and venues,
// which one can.
type site struct {
	cache  *localsync.Cache
	events *localsync.Module[int64, Event]
	venues *localsync.Module[int64, Venue]
	now    func() time.Time
}

func newSite(cache *localsync.Cache, db *sql.DB) (*site, error) {
	s := &site{cache: cache, now: time.Now}
	var err, venueErr error
	s.events, err = localsync.NewModule(cache, localsync.ModuleConfig[int64]{
		Name: "event", TTL: 24 * time.Hour, Refresh: time.Minute,
	}, localsync.JSON[Event](), func(ctx context.Context, ids []int64) (map[int64]Event, error) {
		return query(ctx, db, "SELECT id, title, venue_id, visible_at, sellable_at FROM event WHERE id IN ", ids, scanEvent)
	})
	s.venues, venueErr = localsync.NewModule(cache, localsync.ModuleConfig[int64]{
		Name: "venue", OnError: localsync.Optional,
	}, localsync.JSON[Venue](), func(ctx context.Context, ids []int64) (map[int64]Venue, error) {
		return query(ctx, db, "SELECT id, name, city FROM venue WHERE id IN ", ids, scanVenue)
	})
	return s, errors.Join(err, venueErr)
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

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events/{id}", s.event)
	mux.HandleFunc("GET /events", s.list)
	mux.HandleFunc("GET /stats", s.stats)
	mux.HandleFunc("GET /readyz", s.ready)
	return mux
}

// page is one event as a visitor gets it.
type page struct {
	Event
	Venue    *Venue `json:"venue,omitempty"`
	Sellable bool   `json:"sellable"`
}

func (s *site) event(w http.ResponseWriter, r *http.Request) {
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
	p := page{Event: e, Sellable: !now.Before(e.SellableAt)}
	if v, err := s.venues.Get(r.Context(), e.VenueID); err == nil {
		p.Venue = &v // without it the page is poorer, not broken
	}
	w.Header().Set("X-Rowtide", fmt.Sprintf("level=%s version=%s age=%s stale=%t degraded=%t",
		info.Level, info.Version, info.Age.Round(time.Millisecond), info.Stale, info.Degraded))
	writeJSON(w, p)
}

// maxList keeps one request from asking for the whole shop.
const maxList = 200

func (s *site) list(w http.ResponseWriter, r *http.Request) {
	var ids []int64
	for field := range strings.SplitSeq(r.FormValue("ids"), ",") {
		id, err := strconv.ParseInt(field, 10, 64)
		if err != nil || len(ids) == maxList {
			http.Error(w, fmt.Sprintf("want /events?ids=1,2,3 with at most %d numbers", maxList), http.StatusBadRequest)
			return
		}
		ids = append(ids, id)
	}
	events, err := s.events.GetMany(r.Context(), ids)
	var partial *localsync.PartialError[int64]
	if err != nil && !errors.As(err, &partial) {
		http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
		return
	}
	out := struct {
		Events []Event `json:"events"`
		Failed int     `json:"failed,omitempty"`
	}{Events: []Event{}}
	for _, id := range ids {
		if e, ok := events[id]; ok && !s.now().Before(e.VisibleAt) {
			out.Events = append(out.Events, e)
		}
	}
	if partial != nil {
		out.Failed = len(partial.Failed)
	}
	writeJSON(w, out)
}

func (s *site) stats(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.cache.Stats()) }

func (s *site) ready(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.cache.Ready():
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "bus not positioned yet", http.StatusServiceUnavailable)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		// The visitor has gone; there is nobody left to tell.
		return
	}
}
