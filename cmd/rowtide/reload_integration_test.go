//go:build integration

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// Modules come, change, get new versions and go while rows are written without
// a pause; a faulty file changes nothing. In the end every entry of every module
// is right.
func TestReload_UnderLoadLosesNothing(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) { reloadUnderLoad(t, target) })
	}
}

func reloadUnderLoad(t *testing.T, target testenv.SQLTarget) {
	db := newDatabase(t, target, "reload")
	schema, exec := db.schema, db.exec
	for _, table := range []string{"thing", "other"} {
		exec("CREATE TABLE " + schema + "." + table + " (id INT PRIMARY KEY, name VARCHAR(20), n INT NOT NULL DEFAULT 0)")
		for i := range 300 {
			exec("INSERT INTO "+schema+"."+table+" (id, name) VALUES (?, 'before')", i)
		}
	}

	const (
		thing  = "  - {name: thing, key: \"{id}\", from: {table: SCHEMA.thing}}\n"
		thing2 = "  - {name: thing, version: 2, key: \"{id}\", from: {table: SCHEMA.thing, columns: [id, n]}}\n"
		few    = "  - {name: few, key: \"{id}\", from: {table: SCHEMA.thing, where: n > 3}}\n"
		other  = "  - {name: other, key: \"{id}\", from: {table: SCHEMA.other}, ttl: 1h}\n"
		page   = "  - {name: page, key: \"{id}\", rebuild: {one: 'SELECT id, name, n FROM SCHEMA.other WHERE id IN (:keys)'}, watch: [{table: SCHEMA.other, key: \"{id}\"}]}\n"
	)
	g := goodConfig(t, target, schema)
	path := g.write(t)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(first), "modules:")
	put := func(modules ...string) {
		t.Helper()
		text := head + "modules:\n" + strings.ReplaceAll(strings.Join(modules, ""), "SCHEMA", schema)
		next := filepath.Join(filepath.Dir(path), "next.yaml")
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	put(thing)
	addr := testenv.FreeAddr(t)
	p := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + addr, "ROWTIDE_HTTP_ADMIN_TOKEN=sesame"}, "run", "-c", path)
	eventually(t, "ready", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+addr+"/readyz")
		return code == http.StatusOK, body + p.Log.String()
	})

	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := (i*7 + w*150) % 300
				for _, table := range []string{"thing", "other"} {
					if _, err := db.Exec("UPDATE "+schema+"."+table+" SET n=n+1, name=? WHERE id=?", fmt.Sprint("w", i), id); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	reloaded := func(what string, times int) {
		t.Helper()
		eventually(t, what, 60*time.Second, func() (bool, string) {
			return strings.Count(p.Log.String(), "modules reloaded") >= times, p.Log.String()
		})
	}
	put(thing, few, other)
	reloaded("two modules more", 1)
	put(thing, few, page, strings.Replace(other, "1h", "2h", 1))
	reloaded("a rebuilt module and a setting", 2)

	put(thing, "  - {name: broken}\n")
	eventually(t, "the refusal", 30*time.Second, func() (bool, string) {
		return strings.Contains(p.Log.String(), "is refused") && strings.Contains(p.Log.String(), "modules[1] (broken)"), p.Log.String()
	})
	put(thing, "  - {name: ghost, key: \"{id}\", from: {table: SCHEMA.ghost}}\n")
	if code, body := post(t, "http://"+addr+"/admin/reload", "sesame"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "ghost") {
		t.Errorf("reload with an unknown table: %d %s", code, body)
	}
	if code, body := post(t, "http://"+addr+"/admin/reload", "guess"); code != http.StatusUnauthorized {
		t.Errorf("reload with a wrong token: %d %s", code, body)
	}
	put(thing2, few, page)
	if code, body := post(t, "http://"+addr+"/admin/reload", "sesame"); code != http.StatusOK && !strings.Contains(p.Log.String(), "removed=[other]") {
		t.Errorf("reload: %d %s", code, body)
	}
	reloaded("a version and a removal", 3)
	eventually(t, "everything is filled", 60*time.Second, func() (bool, string) {
		var open, all int
		if err := db.QueryRow("SELECT COUNT(*), COALESCE(SUM(state<>'done'), 0) FROM rowtide.backfill WHERE source_table LIKE ?", schema+".%").Scan(&all, &open); err != nil {
			return false, err.Error()
		}
		return all >= 4 && open == 0, fmt.Sprintf("%d of %d backfills open\n%s", open, all, p.Log)
	})
	close(stop)
	writers.Wait()
	if t.Failed() {
		t.Fatal(p.Log.String())
	}
	if res := rowtideCommand(t, nil, "verify", "-c", path); res.code != exitClean {
		t.Errorf("verify exits %d: %s%s\n%s", res.code, res.stdout, res.stderr, p.Log)
	}
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d:\n%s", code, p.Log)
	}
}

func post(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
