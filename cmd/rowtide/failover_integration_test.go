//go:build integration

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// A Redis failover loses acknowledged writes while the daemon stays up. The daemon
// starts again by itself from a checkpoint before the loss, and in the end every
// row is in Redis; with the checkpoint beside the data and in a file.
func TestRun_RedisFailoverThatLosesWritesIsRepaired(t *testing.T) {
	target := testenv.MariaDB(t)
	for _, store := range []string{"redis", "file"} {
		t.Run(store, func(t *testing.T) { checkRedisFailover(t, target, store) })
	}
}

func checkRedisFailover(t *testing.T, target testenv.SQLTarget, store string) {
	t.Helper()
	db := newDatabase(t, target, "fo")
	schema, exec := db.schema, db.exec
	exec("CREATE TABLE " + schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	servers, err := testenv.StartRedisSentinel(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = servers.Stop(context.Background()) })

	g := goodConfig(t, target, schema)
	g.redis = fmt.Sprintf(`{addrs: ["%s"], master: %s, prefix: fo}`, strings.Join(servers.Addrs(), `","`), testenv.SentinelMaster)
	g.more = "checkpoint: {store: redis}"
	if store == "file" {
		g.more = fmt.Sprintf("checkpoint: {store: file, path: %q}", t.TempDir()+"/checkpoint.json")
	}
	addr := testenv.FreeAddr(t)
	path := g.write(t)
	p := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + addr}, "run", "-c", path)
	said := func(what string, n int) {
		t.Helper()
		eventually(t, what, 60*time.Second, func() (bool, string) { return strings.Count(p.Log.String(), what) >= n, p.Log.String() })
	}
	said("msg=running", 1)
	id := 0
	insertFor := func(d time.Duration) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); id++ {
			exec("INSERT INTO "+schema+".thing VALUES (?, 'x')", id)
		}
	}
	insertFor(3 * time.Second)
	written := func() {
		t.Helper()
		eventually(t, "all is written", 30*time.Second, func() (bool, string) {
			ok, state := holdsKey(t, servers.Primary, fmt.Sprintf("fo:thing:1:%d", id-1))
			return ok, state
		})
	}
	written()
	// The replica is cut off, so that what follows reaches the primary alone.
	for _, words := range [][]string{{"CONFIG", "SET", "masterauth", "wrong"}, {"CLIENT", "KILL", "TYPE", "master"}} {
		if _, err := servers.Replica.Do(t.Context(), words...); err != nil {
			t.Fatal(err)
		}
	}
	from := id
	insertFor(2 * time.Second)
	written()
	if ok, _ := holdsKey(t, servers.Replica, fmt.Sprintf("fo:thing:1:%d", id-1)); ok {
		t.Fatal("the replica has what it should lose: this test shows nothing")
	}
	if err := servers.Primary.Kill(); err != nil {
		t.Fatal(err)
	}
	said("starting again from the checkpoint", 1)
	said("msg=running", 2)
	insertFor(100 * time.Millisecond)
	if res := rowtideCommand(t, nil, "verify", "-c", path); res.code != exitClean {
		t.Errorf("verify exits %d after %d rows, of which the replica lacked those from %d on:\n%s%s\n%s", res.code, id, from, res.stdout, res.stderr, p.Log)
	}
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, p.Log)
	}
}

func holdsKey(t *testing.T, s *testenv.RedisServer, key string) (bool, string) {
	t.Helper()
	n, err := s.Do(t.Context(), "EXISTS", key)
	return n == "1", fmt.Sprint(key, ": ", n, " ", err)
}
