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
	put("stock_view", "1:A:0", `{"event":"1","sku":"A","cell":0,"avail":7,"held":1,"sold":2,"seq":3}`)
	put("stock_view", "1:B:0", `{"avail":0}`)
	put("front", "", `[4,3,2,1,9]`) // as another node has loaded it; 9 cannot be read
	tests := []struct {
		path string
		code int
		want string
		not  string
	}{
		{"/events/1", 200, "<p>Globe, London</p>\n<p>On sale</p>\n<ul><li>A: 7 left</li><li class=\"out\">B: sold out</li></ul>", ""},
		{"/events/2", 200, "On sale from 21 November 2026, 10:00 UTC", "<li>"},
		{"/events/3", 404, "no such event", ""}, // not visible before ten
		{"/events/4", 404, "no such event", ""},
		{"/events/9", 503, "try again", ""}, // neither Redis nor the database knows
		{"/events/x", 400, "number", ""},
		{"/", 200, `<li><a href="/events/2">Soon</a></li><li><a href="/events/1">Hamlet</a></li>`, "Secret"},
		{"/localsync/", 200, "<html", ""},
		{"/readyz", 204, "", ""},
		{"/nosuch", 404, "", ""},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, nil))
		body := w.Body.String()
		if w.Code != tt.code || !strings.Contains(body, tt.want) || tt.not != "" && strings.Contains(body, tt.not) {
			t.Errorf("%s: %d %s; want %d with %s", tt.path, w.Code, body, tt.code, tt.want)
		}
	}
}
