package main

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// quiet is a bus on which nothing happens.
type quiet struct{}

func (quiet) Open(context.Context) (int32, error) { return 1, nil }

func (quiet) Run(ctx context.Context, _ localsync.Sink) error {
	<-ctx.Done()
	return nil
}

func (quiet) Close() error { return nil }

// testSite is a site whose Redis has what the daemon wrote, and whose database
// does not answer.
func testSite(t *testing.T) (http.Handler, func(module, id, value string)) {
	t.Helper()
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	db, err := sql.Open("mysql", "nobody@tcp(127.0.0.1:1)/shop")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	cache, err := localsync.Open(t.Context(), localsync.Options{
		Redis: rdb, Bus: quiet{}, MaxBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close(context.Background()) })
	s, err := newSite(cache, db)
	if err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC) }
	return s.handler(), func(module, id, value string) {
		e := rowtide.Entry{Key: rowtide.Key{Module: module, Version: 1, ID: id}, Version: 1, Payload: []byte(value)}
		if value == "" {
			e.Flags = rowtide.FlagEmpty
		}
		if err := mr.Set(e.Key.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSite(t *testing.T) {
	h, put := testSite(t)
	const at8, at10 = `"2026-11-21T08:00:00Z"`, `"2026-11-21T10:00:00Z"`
	put("event", "1", `{"id":1,"title":"Hamlet","venue_id":5,"visible_at":`+at8+`,"sellable_at":`+at8+`}`)
	put("event", "2", `{"id":2,"title":"Soon","venue_id":6,"visible_at":`+at8+`,"sellable_at":`+at10+`}`)
	put("event", "3", `{"id":3,"title":"Secret","venue_id":5,"visible_at":`+at10+`,"sellable_at":`+at10+`}`)
	put("event", "4", "")
	put("venue", "5", `{"id":5,"name":"Globe","city":"London"}`)
	tests := []struct {
		path string
		code int
		want string
	}{
		{"/events/1", 200, `"venue":{"id":5,"name":"Globe","city":"London"},"sellable":true`},
		{"/events/2", 200, `"sellable":false`}, // its venue cannot be loaded: the page is there without it
		{"/events/3", 404, "no such event"},    // not visible before ten
		{"/events/4", 404, "no such event"},
		{"/events/9", 503, "try again"}, // neither Redis nor the database knows
		{"/events/x", 400, "number"},
		{"/events?ids=1,2,3,4", 200, `[{"id":1,`},
		{"/events?ids=1,9", 200, `"failed":1`},
		{"/events?ids=", 400, "want /events"},
		{"/events?ids=" + strings.Repeat("1,", 300) + "1", 400, "at most"},
		{"/stats", 200, `"Name":"event"`},
		{"/readyz", 204, ""},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, nil))
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: %d %s; want %d with %s", tt.path, w.Code, w.Body, tt.code, tt.want)
		}
	}
}
