//go:build integration

package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// A table that the log says nothing of: filled at the first start, filled again
// on request, in part and whole, paused over a kill, and right at the end.
func TestBackfill_FromTheCommandLine(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			const rows = 3000
			schema := testenv.UniqueName(t, "fill")
			db, err := sql.Open("mysql", target.DSN(""))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			exec := func(q string) {
				t.Helper()
				if _, err := db.ExecContext(t.Context(), q); err != nil {
					t.Fatalf("%.100s: %v", q, err)
				}
			}
			exec("CREATE DATABASE " + schema)
			t.Cleanup(func() {
				_, _ = db.ExecContext(context.Background(), "DROP DATABASE "+schema)
				_, _ = db.ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+schema+"_rt")
			})
			exec("CREATE TABLE " + schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
			var values []string
			for i := range rows {
				values = append(values, fmt.Sprintf("(%d,'n%d')", i, i))
			}
			exec("INSERT INTO " + schema + ".thing VALUES " + strings.Join(values, ","))

			g := goodConfig(t, target, schema)
			g.source = strings.Replace(g.source, "}", ", backfill: {schema: "+schema+"_rt, rate: 100000}}", 1)
			path := g.write(t)
			addr := testenv.FreeAddr(t)
			env := []string{"ROWTIDE_HTTP_LISTEN=" + addr}
			if res := rowtideCommand(t, env, "check", "-c", path); res.code != exitClean {
				t.Fatalf("check: %s", res.stderr)
			}
			p := startProcess(t, env, "run", "-c", path)
			done := func(n int) {
				t.Helper()
				eventually(t, fmt.Sprintf("%d backfills done", n), 30*time.Second, func() (bool, string) {
					s := p.Log.String()
					return strings.Count(s, `msg="backfill is done"`) >= n, s
				})
			}
			done(1)
			verified := func() {
				t.Helper()
				if res := rowtideCommand(t, env, "verify", "-c", path); res.code != exitClean || !strings.Contains(res.stdout, "0 differences") {
					t.Errorf("verify exits %d: %s%s", res.code, res.stdout, res.stderr)
				}
			}
			verified()

			rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
			defer rdb.Close()
			prefix, _, _ := strings.Cut(strings.SplitN(g.redis, "prefix: ", 2)[1], "}")
			remove := func(ids ...string) {
				t.Helper()
				for _, id := range ids {
					if n, err := rdb.Del(t.Context(), prefix+":thing:1:"+id).Result(); n != 1 || err != nil {
						t.Fatalf("remove %s: %d, %v", id, n, err)
					}
				}
			}
			there := func(id string) bool { return rdb.Exists(t.Context(), prefix+":thing:1:"+id).Val() == 1 }
			remove("7", "8", "2999")
			res := rowtideCommand(t, env, "backfill", "-c", path, "thing", "--keys", "7,2999")
			if res.code != exitClean || !strings.Contains(res.stdout, "done, 2 rows") || !there("7") || !there("2999") || there("8") {
				t.Errorf("--keys exits %d: %s%s; 7 %v, 8 %v, 2999 %v", res.code, res.stdout, res.stderr, there("7"), there("8"), there("2999"))
			}
			res = rowtideCommand(t, env, "backfill", "-c", path, "thing", "--where", "name LIKE 'n8%'")
			if res.code != exitClean || !strings.Contains(res.stdout, "done, 111 rows") || !there("8") {
				t.Errorf("--where exits %d: %s%s", res.code, res.stdout, res.stderr)
			}
			res = rowtideCommand(t, env, "backfill", "-c", path, "thing", "--where", "nome = 1")
			if res.code != exitRuntime || !strings.Contains(res.stderr, "--where: ") || !strings.Contains(res.stderr, "nome") {
				t.Errorf("a wrong condition exits %d: %s%s", res.code, res.stdout, res.stderr)
			}

			// Asked while nobody is there, paused, and gone on with after a start.
			p.Kill()
			remove("5")
			for _, args := range [][]string{{"--no-wait"}, {"--pause"}} {
				if res := rowtideCommand(t, env, append([]string{"backfill", "-c", path}, args...)...); res.code != exitClean {
					t.Fatalf("%v exits %d: %s", args, res.code, res.stderr)
				}
			}
			p = startProcess(t, env, "run", "-c", path)
			eventually(t, "daemon runs", 30*time.Second, func() (bool, string) { return strings.Contains(p.Log.String(), "msg=running"), p.Log.String() })
			if res := rowtideCommand(t, env, "backfill", "-c", path, "--list"); !strings.Contains(res.stdout, "paused") || there("5") {
				t.Errorf("list: %s%s", res.stdout, res.stderr)
			}
			if res := rowtideCommand(t, env, "backfill", "-c", path, "--resume"); res.code != exitClean {
				t.Errorf("--resume: %s", res.stderr)
			}
			done(1)
			verified()
			if code := p.Terminate(t); code != exitClean {
				t.Errorf("daemon exits %d:\n%s", code, p.Log)
			}
		})
	}
}

func TestBackfill_BadInput(t *testing.T) {
	g := goodConfig(t, testenv.MariaDB(t), "nowhere")
	path := g.write(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"thong"}, `no module is named "thong"; there are thing`},
		{[]string{"--where", "1", "--pause"}, "exclude each other"},
		{[]string{"--keyz", "1"}, "unknown flag"},
	} {
		res := rowtideCommand(t, nil, append([]string{"backfill", "-c", path}, tt.args...)...)
		if res.code != exitConfig || !strings.Contains(res.stderr, tt.want) {
			t.Errorf("%v exits %d: %s, want %q", tt.args, res.code, res.stderr, tt.want)
		}
	}
}
