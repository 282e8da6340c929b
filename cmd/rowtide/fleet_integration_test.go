//go:build integration

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

// quiet is a bus on which nothing is said.
type quiet struct{}

func (quiet) Open(context.Context) (int32, error) { return 2, nil }
func (quiet) Close() error                        { return nil }

func (quiet) Run(ctx context.Context, _ localsync.Sink) error {
	<-ctx.Done()
	return nil
}

// nodeRights is the Redis user of a web node in docs/operations.md.
func nodeRights(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rights := regexp.MustCompile(`(?m)^on >password ~rowtide:\* &rowtide:.*$`).FindString(string(page))
	if rights == "" || strings.Contains(rights, "+del") || strings.Contains(rights, "+scan") {
		t.Fatalf("docs/operations.md gives web nodes the rights %q", rights)
	}
	return rights
}

// fetchNodes asks the daemon's endpoint.
func fetchNodes(t *testing.T, addr, token string) (int, string, nodesDocument) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/admin/nodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var doc nodesDocument
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &doc); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
	}
	return resp.StatusCode, string(body), doc
}

// Three nodes with the rights that the page of operations gives them report to a
// real daemon with its own; one closes, one dies, one goes on.
func TestFleet_DaemonSeesNodesComeAndGo(t *testing.T) {
	target := testenv.MariaDB(t)
	db := newDatabase(t, target, "fleet")
	db.exec("CREATE TABLE " + db.schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	srv, err := testenv.StartRedis(t.Context(), testenv.Options{ACL: []string{"daemon " + documentedRights(t), "web " + nodeRights(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop(context.Background()) })
	addr := testenv.FreeAddr(t)
	g := goodConfig(t, target, db.schema)
	g.redis = fmt.Sprintf(`{addrs: ["%s"], prefix: rowtide, username: daemon, password: password}`, srv.Addr)
	p := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + addr, "ROWTIDE_HTTP_ADMIN_TOKEN=secret", "ROWTIDE_SOURCE_BACKFILL_AUTO=false"}, "run", "-c", g.write(t))
	eventually(t, "the daemon is ready", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+addr+"/readyz")
		return code == http.StatusOK, fmt.Sprint(body, p.Log)
	})
	if code, body, _ := fetchNodes(t, addr, ""); code != http.StatusUnauthorized {
		t.Errorf("without the token: %d %s", code, body)
	}

	caches, clients := map[string]*localsync.Cache{}, map[string]*redis.Client{}
	for _, name := range []string{"a", "b", "c"} {
		rdb := redis.NewClient(&redis.Options{Addr: srv.Addr, Username: "web", Password: "password", MaxRetries: -1})
		c, err := localsync.Open(t.Context(), localsync.Options{
			Redis: rdb, Bus: quiet{}, Node: name, ReportEvery: 100 * time.Millisecond, Silence: time.Hour, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		caches[name], clients[name] = c, rdb
		t.Cleanup(func() { _ = c.Close(context.Background()); rdb.Close() })
		m, err := localsync.NewModule(c, localsync.ModuleConfig[int]{Name: "thing"}, localsync.Bytes(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			_, _ = m.Get(t.Context(), 1)
		}
	}
	names := func(want ...string) {
		t.Helper()
		eventually(t, fmt.Sprint("the daemon sees ", want), 30*time.Second, func() (bool, string) {
			code, body, doc := fetchNodes(t, addr, "secret")
			var got []string
			for _, n := range doc.Nodes {
				got = append(got, n.Node)
			}
			return code == http.StatusOK && slices.Equal(got, want), body
		})
	}
	metric := func(line string) {
		t.Helper()
		eventually(t, line, 30*time.Second, func() (bool, string) {
			_, body := get(t, "http://"+addr+"/metrics")
			return strings.Contains(body, "\n"+line+"\n"), body
		})
	}
	names("a", "b", "c")
	metric("rowtide_nodes 3")
	metric("rowtide_nodes_degraded 0")
	metric(`rowtide_nodes_reads_total{level="redis",module="thing"} 30`)
	if res := rowtideCommand(t, nil, "status", "--addr", addr); !strings.Contains(res.stdout, "3 report, 0 of them degraded") {
		t.Errorf("status: %s%s", res.stdout, res.stderr)
	}

	if err := caches["a"].Close(t.Context()); err != nil {
		t.Error(err)
	}
	names("b", "c")
	clients["b"].Close() // as a process that died: it says nothing any more
	names("c")
	metric("rowtide_nodes 1")
	metric(`rowtide_nodes_reads_total{level="redis",module="thing"} 30`)
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, p.Log)
	}
}
