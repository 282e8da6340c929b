//go:build integration

package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

// sidecarRights is the Redis user of a sidecar in docs/operations.md.
func sidecarRights(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rights := regexp.MustCompile(`(?m)^on >password %R~rowtide:.*$`).FindString(string(page))
	if rights == "" || strings.Contains(rights, "+@") || strings.Contains(rights, "+evalsha") {
		t.Fatalf("docs/operations.md gives a sidecar the rights %q", rights)
	}
	return rights
}

// With the rights that the page of operations gives it, and no other, a sidecar
// serves and the daemon's console sees it. Redis refuses it nothing that it wants.
func TestNode_ServesAndReportsWithTheDocumentedRights(t *testing.T) {
	for _, p := range testenv.RedisPrograms(t) {
		t.Run(p.Name, func(t *testing.T) {
			srv, err := testenv.StartRedis(t.Context(), testenv.Options{Bin: p.Bin, ACL: []string{"sidecar " + sidecarRights(t)}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = srv.Stop(context.Background()) })
			checkRights(t, srv)
		})
	}
}

func checkRights(t *testing.T, srv *testenv.RedisServer) {
	t.Helper()
	b := newBoth(t)
	b.daemon() // heartbeats
	admin := redis.NewClient(&redis.Options{Addr: srv.Addr})
	t.Cleanup(func() { admin.Close() })
	for id := range 2 {
		e := show(id, 7)
		if err := admin.Set(t.Context(), e.Key.Redis("rowtide"), e.AppendEnvelope(nil), time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	addr, web := testenv.FreeAddr(t), testenv.FreeAddr(t)
	p := startProcess(t, nil, "node", "-c", writeConfig(t, `
redis: {addrs: ["%s"], prefix: rowtide, username: sidecar, password: password}
kafka: {brokers: ["%s"], topic: %s}
node: {listen: "%s", http: "%s"}
modules: [{name: show, key: "{id}", from: {table: shop.show}}]
`, srv.Addr, strings.Join(b.cfg.Brokers, `","`), b.cfg.Topic, addr, web))
	eventually(t, "the sidecar is ready", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+web+"/readyz")
		return code == 200, body + p.Log.String()
	})
	c := dialRaw(t, addr)
	if got := c.do("GET", "show:0"); got != "$2\r\nv7\r\n" {
		t.Errorf("GET: %q", got)
	}
	if got := c.do("MGET", "show:1", "show:9"); got != "*2\r\n$2\r\nv7\r\n$-1\r\n" {
		t.Errorf("MGET: %q", got)
	}
	if code, body := get(t, "http://"+web+"/localsync/inspect?module=show&key=1"); code != 200 || !strings.Contains(body, "are equal") {
		t.Errorf("inspect: %d %s", code, body)
	}
	// Reports by now and then: one that counts these reads is not the first.
	eventually(t, "the report counts the reads", 30*time.Second, func() (bool, string) {
		nodes, err := localsync.Nodes(t.Context(), admin, "rowtide")
		// The control topic may tell it of other tests' modules.
		counted := err == nil && len(nodes) == 1 && slices.ContainsFunc(nodes[0].Modules, func(m localsync.ModuleStats) bool { return m.Name == "show" && m.Redis == 3 })
		return counted, fmt.Sprint(nodes, err, p.Log)
	})
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d: %s", code, p.Log)
	}
	eventually(t, "the report is taken back", 30*time.Second, func() (bool, string) {
		nodes, err := localsync.Nodes(t.Context(), admin, "rowtide")
		return err == nil && len(nodes) == 0, fmt.Sprint(nodes, err)
	})
	for line := range strings.Lines(p.Log.String()) {
		if !strings.Contains(line, "level=INFO") {
			t.Errorf("the sidecar's log has %s", line)
		}
	}
	refused, err := admin.ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refused {
		t.Errorf("Redis refused %s: %s", r.Reason, r.Object)
	}
	as := redis.NewClient(&redis.Options{Addr: srv.Addr, Username: "sidecar", Password: "password"})
	t.Cleanup(func() { as.Close() })
	for _, err := range []error{
		as.Set(t.Context(), rowtide.Key{Module: "show", Version: 1, ID: "1"}.Redis("rowtide"), "x", 0).Err(),
		as.Del(t.Context(), "rowtide:~report:1").Err(), as.Get(t.Context(), "s:1").Err(),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("beyond its rights the user gets %v", err)
		}
	}
}
