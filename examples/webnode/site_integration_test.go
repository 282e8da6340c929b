//go:build integration

package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// shop is what the README sets up: a database with schema.sql, the daemon on
// rowtide.yaml as it is, and the site, each a process of its own.
type shop struct {
	t            *testing.T
	db           *sql.DB
	rdb          *redis.Client
	prefix       string
	url          string
	daemon, site *testenv.Program
}

func newShop(t *testing.T) *shop {
	t.Helper()
	// A server of its own: rowtide.yaml says what the database is called, and what its
	// log of statements holds shall be of this test.
	server, err := testenv.StartMariaDB(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	s := &shop{t: t, prefix: testenv.UniqueName(t, "web")}
	s.createDatabase(server)
	s.rdb = redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	t.Cleanup(func() { _ = s.rdb.Close() })

	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "./cmd/rowtide", "./examples/webnode")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	brokers, topic := strings.Join(testenv.Kafka(t), ","), testenv.UniqueName(t, "web")
	s.daemon = testenv.StartProgram(t, exec.Command(filepath.Join(bin, "rowtide"), "run", "-c", "rowtide.yaml"),
		"ROWTIDE_SOURCE_ADDR="+server.Addr, "ROWTIDE_HTTP_LISTEN="+testenv.FreeAddr(t), "ROWTIDE_REDIS_ADDRS="+testenv.Redis(t),
		"ROWTIDE_REDIS_PREFIX="+s.prefix, "ROWTIDE_KAFKA_BROKERS="+brokers, "ROWTIDE_KAFKA_TOPIC="+topic)
	s.eventually("the daemon runs", func() (bool, string) { return strings.Contains(s.daemon.Log.String(), "msg=running"), "" })

	addr := testenv.FreeAddr(t)
	s.url = "http://" + addr
	s.site = testenv.StartProgram(t, exec.Command(filepath.Join(bin, "webnode"), "-listen", addr, "-dsn", server.DSN("shop")+"?parseTime=true",
		"-redis", testenv.Redis(t), "-brokers", brokers, "-topic", topic, "-prefix", s.prefix))
	s.see("/readyz", http.StatusNoContent)
	return s
}

func (s *shop) createDatabase(server *testenv.SQLServer) {
	s.t.Helper()
	schema, err := os.ReadFile("schema.sql")
	if err != nil {
		s.t.Fatal(err)
	}
	if s.db, err = sql.Open("mysql", server.DSN("")+"?multiStatements=true"); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = s.db.Close() })
	s.exec("CREATE DATABASE shop; USE shop; " + string(schema))
	s.exec("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON")
}

func (s *shop) exec(q string) {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), q); err != nil {
		s.t.Fatalf("%s: %v", q, err)
	}
}

// loads is how many statements of the loaders of events and venues the database was
// given: it keeps count itself, so that it need not be taken from the cache's word.
func (s *shop) loads() (n int) {
	s.t.Helper()
	const q = "SELECT COUNT(*) FROM mysql.general_log WHERE command_type = 'Execute'" +
		" AND (argument LIKE 'SELECT id, title,%FROM event WHERE id IN%' OR argument LIKE 'SELECT id, name,%FROM venue WHERE id IN%')"
	if err := s.db.QueryRowContext(s.t.Context(), q).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// key is what an event is called in Redis.
func (s *shop) key(module, id string) string {
	return rowtide.Key{Module: module, Version: 1, ID: id}.Redis(s.prefix)
}

// payload is what Redis holds of a key, "" for nothing.
func (s *shop) payload(key string) string {
	b, err := s.rdb.Get(s.t.Context(), key).Bytes()
	if err != nil {
		return ""
	}
	return string(b[rowtide.EnvelopeHeader:])
}

// get fetches a page of the site. level is which level the event came from.
func (s *shop) get(path string) (code int, body, level string) {
	s.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(s.url + path)
	if err != nil {
		return 0, err.Error(), ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	_, _ = fmt.Sscanf(resp.Header.Get("X-Rowtide"), "level=%s", &level)
	return resp.StatusCode, string(b), level
}

// see fetches a page until it has all that is wanted.
func (s *shop) see(path string, code int, want ...string) {
	s.t.Helper()
	s.eventually(fmt.Sprint(path, " shows ", want), func() (bool, string) {
		got, body, _ := s.get(path)
		for _, w := range want {
			if !strings.Contains(body, w) {
				return false, body
			}
		}
		return got == code, body
	})
}

// eventually polls until ok, for what only the other processes know.
func (s *shop) eventually(what string, ok func() (bool, string)) {
	s.t.Helper()
	const patience = 60 * time.Second // a daemon's start on a machine that is busy with other tests
	end := time.After(patience)
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-end:
			s.t.Fatalf("%s: not within %s; last seen: %s\ndaemon:\n%s\nsite:\n%s", what, patience, state, s.daemon.Log, s.site.Log)
		}
	}
}

// The README, step by step. Pages follow the rows without a query; what Redis lacks,
// the loaders bring, in the daemon's own words.
func TestSite_FollowsTheDatabaseWithoutItsLoaders(t *testing.T) {
	s := newShop(t)
	s.see("/events/1", 200, "<h1>Hamlet</h1>", "<p>Globe, London</p>", "<p>On sale</p>", `<li>A: 100 left</li><li class="out">B: sold out</li>`)

	// Macbeth has not been read yet. Redis loses it, so the database is asked.
	macbeth := s.key("event", "2")
	s.eventually("the daemon has written Macbeth", func() (bool, string) { return s.payload(macbeth) != "", "" })
	written := s.payload(macbeth)
	if err := s.rdb.Del(t.Context(), macbeth).Err(); err != nil {
		t.Fatal(err)
	}
	before := s.loads()
	if code, body, level := s.get("/events/2"); code != 200 || level != "loader" || !strings.Contains(body, "<h1>Macbeth</h1>") {
		t.Fatalf("%d %s from %s, want Macbeth from the loader", code, body, level)
	}
	if s.loads() <= before {
		t.Fatal("the database has not heard of the loader's query")
	}
	s.eventually("Redis has it again", func() (bool, string) {
		_, _, level := s.get("/events/2")
		return s.payload(macbeth) != "", level
	})
	if loaded := s.payload(macbeth); loaded != written {
		t.Errorf("loaded %s, the daemon wrote %s", loaded, written)
	}
	s.see("/", 200, `<a href="/events/1">Hamlet</a>`, `<a href="/events/2">Macbeth</a>`)

	before = s.loads()
	s.exec("UPDATE shop.stock_cell SET avail = 99 WHERE event = '1' AND sku = 'A'")
	s.see("/events/1", 200, "<li>A: 99 left</li>")
	s.exec("UPDATE shop.event SET title = 'Romeo & Juliet', sellable_at = '2100-01-01 10:00:00' WHERE id = 1")
	s.see("/events/1", 200, "<h1>Romeo &amp; Juliet</h1>", "<p>On sale from 1 January 2100, 10:00 UTC</p>")
	s.exec("UPDATE shop.venue SET city = 'Southwark' WHERE id = 5")
	s.see("/events/2", 200, "<h1>Macbeth</h1>", "<p>Globe, Southwark</p>")
	s.exec("DELETE FROM shop.event WHERE id = 2")
	s.see("/events/2", 404, "no such event")
	s.exec("INSERT INTO shop.event VALUES (3, 'King Lear', 5, '2026-01-01 08:00:00.5', '2026-01-01 10:00:00')")
	s.see("/", 200, `<a href="/events/3">King Lear</a>`, "Romeo &amp; Juliet")
	if got := s.loads() - before; got != 0 {
		t.Errorf("%d queries of the loaders for what the daemon told", got)
	}
	for _, p := range []*testenv.Program{s.site, s.daemon} {
		if code := p.Terminate(t); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM:\n%s", p.Cmd.Path, code, p.Log)
		}
	}
}
