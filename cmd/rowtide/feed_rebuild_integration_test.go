//go:build integration

package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// A rebuild module fed from a topic asks the database that the config names, and
// verify compares with it.
func TestFeed_RebuildModulesAskTheDatabase(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			schema := testenv.UniqueName(t, "feed")
			db, err := sql.Open("mysql", target.DSN(""))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, q := range []string{
				"CREATE DATABASE " + schema, "CREATE TABLE " + schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))",
				"INSERT INTO " + schema + ".thing VALUES (1, 'one'), (2, 'two')",
			} {
				if _, err := db.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP DATABASE "+schema) })
			p, topic := newFeedTopic(t, 2)
			for id := range 3 { // the row 0 is gone again
				m := fmt.Sprintf(`{"database":%q,"table":"thing","type":"insert","ts":1,"position":"b.000001:%d","gtid":"x:%d","data":{"id":%d,"name":"stale"}}`, schema, 100+id, id, id)
				if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: int32(id % 2), Value: sarama.StringEncoder(m)}); err != nil {
					t.Fatal(err)
				}
			}
			g := goodConfig(t, target, schema)
			prefix := testenv.UniqueName(t, "feed")
			g.redis = fmt.Sprintf(`{addrs: ["%s"], prefix: %s}`, testenv.Redis(t), prefix)
			g.source = fmt.Sprintf(`{kind: kafka, format: maxwell-json, brokers: ["%s"], topics: [%s], addr: "%s", user: root}`,
				strings.Join(testenv.Kafka(t), `","`), topic, target.Addr)
			g.modules = fmt.Sprintf(`[{name: thing, key: "{id}", rebuild: {one: "SELECT id, name FROM %[1]s.thing WHERE id IN (:keys)"}, watch: [{table: %[1]s.thing, key: "{id}"}]}]`, schema)
			path := g.write(t)
			d := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + testenv.FreeAddr(t)}, "run", "-c", path)
			rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
			defer rdb.Close()
			eventually(t, "the rows as the database has them", 30*time.Second, func() (bool, string) {
				got := entriesOf(t, rdb, prefix)
				return len(got) == 3 && got["0"] == "" && strings.Contains(got["1"], `"one"`) && strings.Contains(got["2"], `"two"`), fmt.Sprint(got, d.Log)
			})
			if res := rowtideCommand(t, nil, "verify", "-c", path); res.code != exitClean {
				t.Errorf("verify exits %d: %s%s", res.code, res.stdout, res.stderr)
			}
			if code := d.Terminate(t); code != exitClean {
				t.Errorf("exit code %d after SIGTERM:\n%s", code, d.Log)
			}
		})
	}
}
