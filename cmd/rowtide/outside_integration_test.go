//go:build integration

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// get fetches a page of the daemon.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// documentedRights is the Redis user of docs/operations.md.
func documentedRights(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rights := regexp.MustCompile(`(?m)^on >password .*$`).FindString(string(page))
	for _, never := range []string{"+del", "+unlink", "+expire", "+rename", "+flush", "+keys", "+@"} {
		if rights == "" || strings.Contains(strings.ToLower(rights), never) {
			t.Fatalf("docs/operations.md gives the daemon the rights %q, want a line without %s", rights, never)
		}
	}
	return rights
}

// What operators see: health, readiness, metrics and status of a daemon that
// works, of one whose Redis is away, and of one that has caught up again; and a
// log that is silent but for the changes of state.
func TestRun_SeenFromOutside(t *testing.T) {
	// A server of its own: what other tests write would be in the counters.
	source, err := testenv.StartMariaDB(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Stop(context.Background()) })
	target := source.Target()
	db := newDatabase(t, target, "outside")
	schema, exec := db.schema, db.exec
	exec("CREATE TABLE " + schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	// The daemon has the rights that the page of operations gives it, and no other:
	// nothing with which a key could be deleted.
	srv, err := testenv.StartRedis(t.Context(), testenv.Options{AppendOnly: true, ACL: []string{"daemon " + documentedRights(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop(context.Background()) })

	addr := testenv.FreeAddr(t)
	g := goodConfig(t, target, schema)
	g.redis = fmt.Sprintf(`{addrs: ["%s"], prefix: rowtide, username: daemon, password: password}`, srv.Addr)
	path := g.write(t)
	// Every write is counted, so that none may come twice.
	env := []string{"ROWTIDE_HTTP_LISTEN=" + addr, "ROWTIDE_SOURCE_BACKFILL_AUTO=false"}
	p := startProcess(t, env, "run", "-c", path)
	ready := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("readyz %d", want), 30*time.Second, func() (bool, string) {
			code, body := get(t, "http://"+addr+"/readyz")
			return code == want, fmt.Sprint(code, " ", body, p.Log)
		})
	}
	ready(http.StatusOK)
	if code, body := get(t, "http://"+addr+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
	for i := range 500 {
		exec("INSERT INTO "+schema+".thing VALUES (?, 'x')", i)
	}
	eventually(t, "500 entries written", 30*time.Second, func() (bool, string) {
		_, body := get(t, "http://"+addr+"/metrics")
		return strings.Contains(body, `rowtide_publisher_overwrites_total{module="thing",result="written"} 500`), body
	})
	if n := strings.Count(p.Log.String(), "\n"); n != 1 || !strings.Contains(p.Log.String(), "msg=running") {
		t.Errorf("the log of a steady state has %d lines, want only that it runs:\n%s", n, p.Log)
	}
	if res := rowtideCommand(t, nil, "status", "--addr", addr); res.code != exitClean || !strings.Contains(res.stdout, "ready") || !strings.Contains(res.stdout, "500 written") {
		t.Errorf("status exits %d: %s%s", res.code, res.stdout, res.stderr)
	}

	if err := srv.Kill(); err != nil {
		t.Fatal(err)
	}
	exec("UPDATE " + schema + ".thing SET name='y' WHERE id=1")
	ready(http.StatusServiceUnavailable)
	if res := rowtideCommand(t, nil, "status", "--addr", addr); !strings.Contains(res.stdout, "NOT READY: ") || !strings.Contains(res.stdout, "the source is held back") {
		t.Errorf("status with Redis away: %s%s", res.stdout, res.stderr)
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready(http.StatusOK)
	if res := rowtideCommand(t, nil, "verify", "-c", path); res.code != exitClean {
		t.Errorf("verify after Redis came back exits %d: %s%s", res.code, res.stdout, res.stderr)
	}
	for _, news := range []string{"redis refuses writes", "checkpoint cannot be saved"} {
		if n := strings.Count(p.Log.String(), news); n > 1 {
			t.Errorf("%q is told %d times, want once at most:\n%s", news, n, p.Log)
		}
	}
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, p.Log)
	}
}
