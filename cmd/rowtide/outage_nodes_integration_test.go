//go:build integration

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

type thing struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// R22, with everything real: Redis is full. A row that changes then is served as it is
// now, marked; of all others the node knows that it may not know; and when Redis has
// room again, all is well without anybody's help.
func TestNodes_KnowOfWhatRedisDoesNotTake(t *testing.T) {
	target := testenv.MariaDB(t)
	db := newDatabase(t, target, "full")
	db.exec("CREATE TABLE " + db.schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	server, err := testenv.StartRedis(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	memory := func(limit string) {
		t.Helper()
		if _, err := server.Do(t.Context(), "CONFIG", "SET", "maxmemory", limit); err != nil {
			t.Fatal(err)
		}
	}
	g, topic := goodConfig(t, target, db.schema), testenv.UniqueName(t, "full")
	g.redis = fmt.Sprintf(`{addrs: ["%s"]}`, server.Addr)
	g.kafka = fmt.Sprintf(`{brokers: ["%s"], topic: %s}`, testenv.Kafka(t)[0], topic)
	p := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + testenv.FreeAddr(t)}, "run", "-c", g.write(t))
	eventually(t, "the daemon runs", 60*time.Second, func() (bool, string) { return strings.Contains(p.Log.String(), "msg=running"), p.Log.String() })

	rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer rdb.Close()
	node, err := localsync.Open(t.Context(), localsync.Options{
		Redis: rdb, Brokers: testenv.Kafka(t), Topic: topic, ReplicaLag: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Close(context.Background()) }()
	things, err := localsync.NewModule(node, localsync.ModuleConfig[int]{Name: "thing"}, localsync.JSON[thing](), func(ctx context.Context, ids []int) (map[int]thing, error) {
		out := map[int]thing{}
		for _, id := range ids {
			it := thing{ID: id}
			if err := db.QueryRowContext(ctx, "SELECT name FROM "+db.schema+".thing WHERE id=?", id).Scan(&it.Name); err != nil {
				return nil, err
			}
			out[id] = it
		}
		return out, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	becomes := func(when string, id int, name string, ok func(localsync.Info) bool) {
		t.Helper()
		eventually(t, when, 30*time.Second, func() (bool, string) {
			v, info, err := things.Lookup(t.Context(), id)
			return err == nil && v.Name == name && ok(info), fmt.Sprintf("%+v %+v %v\n%s", v, info, err, p.Log)
		})
	}
	well := func(i localsync.Info) bool { return !i.Stale && !i.Degraded && i.Level == localsync.LevelLocal }
	db.exec("INSERT INTO " + db.schema + ".thing VALUES (1,'a'),(2,'b')")
	becomes("the first row is cached", 1, "a", well)
	becomes("the second row is cached", 2, "b", well)

	memory("1")
	db.exec("UPDATE " + db.schema + ".thing SET name='c' WHERE id=1")
	becomes("the change is served although Redis does not have it", 1, "c", func(i localsync.Info) bool { return i.Stale })
	becomes("the node says that it may not know", 2, "b", func(i localsync.Info) bool { return i.Degraded })
	if v, err := rdb.Get(t.Context(), "rowtide:thing:1:1").Bytes(); err != nil || string(v[40:]) != `{"id":1,"name":"a"}` {
		t.Errorf("redis has %q, %v; want the old row", v, err)
	}
	memory("0")
	becomes("the change is in Redis", 1, "c", well)
	becomes("the node is in step", 2, "b", well)
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, p.Log)
	}
}
