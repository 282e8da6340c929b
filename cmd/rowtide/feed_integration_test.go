//go:build integration

package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// entriesOf are the values of all keys under a prefix; an EMPTY entry is "".
func entriesOf(t *testing.T, rdb *redis.Client, prefix string) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := rdb.Keys(t.Context(), prefix+":thing:1:*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := rdb.Get(t.Context(), name).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		id := name[strings.LastIndexByte(name, ':')+1:]
		e, err := rowtide.DecodeEnvelope(rowtide.Key{Module: "thing", Version: 1, ID: id}, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[id] = string(e.Payload)
	}
	return out
}

// The same module, fed from the log and from a topic in each format with a kill
// -9 and repeated records in the middle, ends in the same values.
func TestFeed_EveryFormatEndsAsTheBinlogDoes(t *testing.T) {
	target := testenv.MySQL(t)
	schema := testenv.UniqueName(t, "feed")
	db, err := sql.Open("mysql", target.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{"CREATE DATABASE " + schema, "CREATE TABLE " + schema + ".thing " + feedTable} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP DATABASE "+schema) })
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	defer rdb.Close()

	history := feedHistory(120)
	want := feedReference(t, rdb, db, target, schema, history)
	for _, tt := range []struct {
		format     string
		partitions int32
		records    capture
		types      string
	}{
		{"canal-json", 1, canalRecords, ""},
		{"debezium-json", 3, debeziumRecords, ""},
		{"maxwell-json", 3, maxwellRecords, `id bigint unsigned|price decimal(10,2)|at datetime(6)|pic varbinary(16)|doc json`},
	} {
		t.Run(tt.format, func(t *testing.T) {
			p, topic := newFeedTopic(t, tt.partitions)
			send := func(changes []feedChange) {
				t.Helper()
				for i := range changes {
					for _, r := range tt.records(schema, &changes[i]) {
						m := &sarama.ProducerMessage{Topic: topic, Partition: int32(r.id % uint64(tt.partitions))}
						if r.value != "" {
							m.Value = sarama.StringEncoder(r.value)
						}
						if _, _, err := p.SendMessage(m); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			var types []string
			for typ := range strings.SplitSeq(tt.types, "|") {
				if typ != "" {
					types = append(types, fmt.Sprintf("%q", schema+".thing."+typ))
				}
			}
			g := goodConfig(t, target, schema)
			prefix := testenv.UniqueName(t, "feed")
			g.redis = fmt.Sprintf(`{addrs: ["%s"], prefix: %s}`, testenv.Redis(t), prefix)
			g.modules = feedModules(schema)
			g.source = fmt.Sprintf(`{kind: kafka, format: %s, brokers: ["%s"], topics: [%s], types: [%s]}`,
				tt.format, strings.Join(testenv.Kafka(t), `","`), topic, strings.Join(types, ", "))
			path, addr := g.write(t), testenv.FreeAddr(t)
			env := []string{"ROWTIDE_HTTP_LISTEN=" + addr}

			send(history[:60])
			first := startProcess(t, env, "run", "-c", path)
			eventually(t, "some entries", 30*time.Second, func() (bool, string) {
				return len(entriesOf(t, rdb, prefix)) > 0, first.Log.String()
			})
			first.Kill()
			if tt.format != "canal-json" { // whose offsets would make a repeated record news
				send(history[40:60])
			}
			send(history[60:])
			second := startProcess(t, env, "run", "-c", path)
			eventually(t, "the values of the binlog", 30*time.Second, func() (bool, string) {
				got := entriesOf(t, rdb, prefix)
				return maps.Equal(got, want), differences(got, want) + second.Log.String()
			})
			if code, body := get(t, "http://"+addr+"/status"); code != 200 || !strings.Contains(body, topic+":0:") {
				t.Errorf("status %d lacks the place in the topic: %s", code, body)
			}
			if code := second.Terminate(t); code != exitClean {
				t.Errorf("exit code %d after SIGTERM:\n%s", code, second.Log)
			}
		})
	}
}

func feedModules(schema string) string {
	return fmt.Sprintf(`[{name: thing, key: "{id}", from: {table: %s.thing}}]`, schema)
}

// feedReference applies the history to the server and returns what a daemon on
// its log makes of it.
func feedReference(t *testing.T, rdb *redis.Client, db *sql.DB, target testenv.SQLTarget, schema string, history []feedChange) map[string]string {
	t.Helper()
	g := goodConfig(t, target, schema)
	prefix := testenv.UniqueName(t, "log")
	g.redis = fmt.Sprintf(`{addrs: ["%s"], prefix: %s}`, testenv.Redis(t), prefix)
	g.modules = feedModules(schema)
	addr := testenv.FreeAddr(t)
	p := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + addr}, "run", "-c", g.write(t))
	eventually(t, "a daemon on the log", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+addr+"/readyz")
		return code == 200, body + p.Log.String()
	})
	end := map[string]bool{}
	for i := range history {
		c := &history[i]
		c.exec(t, db, schema+".thing")
		for _, r := range []*feedRow{c.before, c.after} {
			if r != nil {
				end[fmt.Sprint(r.id)] = r == c.after
			}
		}
	}
	var got map[string]string
	eventually(t, "every key of the log", 30*time.Second, func() (bool, string) {
		got = entriesOf(t, rdb, prefix)
		ok := len(got) == len(end)
		for id, there := range end {
			ok = ok && (got[id] != "") == there
		}
		if last := history[len(history)-1].after; last != nil {
			ok = ok && strings.Contains(got[fmt.Sprint(last.id)], last.day)
		}
		return ok, fmt.Sprint(len(got), " of ", len(end), p.Log)
	})
	if code := p.Terminate(t); code != exitClean {
		t.Fatalf("exit code %d:\n%s", code, p.Log)
	}
	return entriesOf(t, rdb, prefix)
}

func differences(got, want map[string]string) string {
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[id]; !ok || v != want[id] {
			fmt.Fprintf(&out, "%s: %q, want %q\n", id, v, want[id])
		}
	}
	return out.String()
}

func newFeedTopic(t *testing.T, partitions int32) (sarama.SyncProducer, string) {
	t.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Return.Successes = true
	cfg.Producer.Partitioner = sarama.NewManualPartitioner
	client, err := sarama.NewClient(testenv.Kafka(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	topic := testenv.UniqueName(t, "feed")
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(); _ = admin.DeleteTopic(topic); _ = client.Close() })
	return p, topic
}

// What a feed cannot do ends with the documented exit code and a sentence that
// names the remedy.
func TestFeed_BadInputNamesTheThingAndTheRemedy(t *testing.T) {
	p, topic := newFeedTopic(t, 2)
	if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: 1, Value: sarama.StringEncoder(`{"type":"upsert"}`)}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, command, source, modules string
		code                           int
		want                           []string
	}{
		{"canal over two partitions", "check", "format: canal-json", "", exitRuntime, []string{topic, "source.keyed"}},
		{"a record that is none", "run", "format: maxwell-json", "", exitRuntime, []string{"topic " + topic + " partition 1 offset 0", `type "upsert"`}},
		{
			"rebuild without a database", "check", "format: maxwell-json",
			`[{name: page, key: "{id}", rebuild: {one: "SELECT id FROM s.thing WHERE id IN (:keys)"}, watch: [{table: s.thing, key: "{id}"}]}]`,
			exitConfig,
			[]string{"module page asks the database", "source.addr"},
		},
		{"verify without a database", "verify", "format: maxwell-json", "", exitRuntime, []string{"rowtide verify asks the database", "source.addr"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := goodConfig(t, testenv.SQLTarget{}, "s")
			g.modules = feedModules("s")
			if tt.modules != "" {
				g.modules = tt.modules
			}
			g.source = fmt.Sprintf(`{kind: kafka, %s, brokers: ["%s"], topics: [%s]}`, tt.source, strings.Join(testenv.Kafka(t), `","`), topic)
			g.more = `http: {listen: ""}`
			res := rowtideCommand(t, nil, tt.command, "-c", g.write(t))
			if res.code != tt.code {
				t.Errorf("exit code %d, want %d; it said:\n%s", res.code, tt.code, res.stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(res.stderr, want) {
					t.Errorf("message lacks %q:\n%s", want, res.stderr)
				}
			}
		})
	}
}
