//go:build integration

package main

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// A module goes to another version and back. Nodes are told which key space stands in
// while the new one is filled, and when it no longer does. Going back fills a key
// space again that was filled once, also at a start, and puts in doubt what it still
// holds.
func TestBump_FormerKeySpaceStandsInUntilTheNewOneIsFilled(t *testing.T) {
	target := testenv.MariaDB(t)
	db := newDatabase(t, target, "bump")
	db.exec("CREATE TABLE " + db.schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	db.exec("INSERT INTO " + db.schema + ".thing VALUES (1, 'first'), (2, 'second')")
	g := goodConfig(t, target, db.schema)
	path := g.write(t)
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	addr := testenv.FreeAddr(t)
	start := func() *testenv.Program {
		t.Helper()
		p := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + addr}, "run", "-c", path)
		eventually(t, "ready", 30*time.Second, func() (bool, string) {
			code, body := get(t, "http://"+addr+"/readyz")
			return code == http.StatusOK, body + p.Log.String()
		})
		return p
	}
	become := func(version int) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(text), "modules:")
		head += fmt.Sprintf("modules: [{name: thing, version: %d, key: \"{id}\", from: {table: %s.thing}}]\n", version, db.schema)
		if err := os.WriteFile(path, []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	defer rdb.Close()
	comes := func(version int, id, want string) {
		t.Helper()
		key := fmt.Sprintf("%s:thing:%d:%s", cfg.Redis.Prefix, version, id)
		eventually(t, key, 20*time.Second, func() (bool, string) {
			s, err := rdb.Get(t.Context(), key).Result()
			return err == nil && strings.Contains(s, want), fmt.Sprintf("%q %v", s, err)
		})
	}
	told := func(want ...string) {
		t.Helper()
		eventually(t, "the control topic", 20*time.Second, func() (bool, string) {
			got := controlRecords(t, cfg.Kafka)
			return slices.Equal(got, want), fmt.Sprintf("it has %q, want %q", got, want)
		})
	}

	p := start()
	comes(1, "2", "second")
	told("1 after 0, generation 0")
	become(2) // the daemon takes it over while it runs
	comes(2, "2", "second")
	told("1 after 0, generation 0", "2 after 1, generation 0", "2 after 0, generation 0")
	db.exec("UPDATE " + db.schema + ".thing SET name = 'changed' WHERE id = 2")
	comes(2, "2", "changed")
	if code := p.Terminate(t); code != exitClean {
		t.Fatalf("exits %d:\n%s", code, p.Log)
	}
	become(1) // and this one at a start
	p = start()
	comes(1, "2", "changed")
	told("1 after 0, generation 0", "2 after 1, generation 0", "2 after 0, generation 0", "1 after 2, generation 1", "1 after 0, generation 1")
	if code := p.Terminate(t); code != exitClean {
		t.Fatalf("exits %d:\n%s", code, p.Log)
	}
	start()
	told("1 after 0, generation 0", "2 after 1, generation 0", "2 after 0, generation 0", "1 after 2, generation 1", "1 after 0, generation 1")
}

// controlRecords are all that were ever written, oldest first.
func controlRecords(t *testing.T, cfg publisher.Config) []string {
	t.Helper()
	client, err := sarama.NewClient(cfg.Brokers, publisher.ProducerConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	end, err := client.GetOffset(cfg.ControlTopic, 0, sarama.OffsetNewest)
	if err != nil {
		return []string{err.Error()}
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	records, err := consumer.ConsumePartition(cfg.ControlTopic, 0, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	var out []string
	for range end {
		select {
		case r := <-records.Messages():
			mc, err := rowtide.DecodeControl(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%d after %d, generation %d", mc.Version, mc.Previous, mc.Generation))
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d records came", len(out), end)
		}
	}
	return out
}
