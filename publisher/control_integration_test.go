//go:build integration

package publisher_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// keyedTopics is a config with topics of the test's own.
func keyedTopics(t *testing.T, brokers []string) (publisher.Config, sarama.Client) {
	t.Helper()
	cfg := publisher.Config{Brokers: brokers, Prefix: testenv.UniqueName(t, "p")}.WithDefaults()
	client, err := sarama.NewClient(brokers, publisher.ProducerConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return cfg, client
}

func newControl(t *testing.T, cfg publisher.Config, client sarama.Client) *publisher.Control {
	t.Helper()
	c, err := publisher.NewControl(cfg, client, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func put(t *testing.T, c *publisher.Control, ms ...rowtide.ModuleControl) {
	t.Helper()
	if err := c.Put(testContext(t), ms); err != nil {
		t.Fatal(err)
	}
}

// offset is the topic's end: how many records were ever written.
func offset(t *testing.T, client sarama.Client, topic string) int64 {
	t.Helper()
	n, err := client.GetOffset(topic, 0, sarama.OffsetNewest)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func policyOf(t *testing.T, client sarama.Client, topic string) string {
	t.Helper()
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	found, err := admin.DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"cleanup.policy"}}}, sarama.DescribeConfigsOptions{})
	if err != nil || len(found) != 1 || len(found[0].Configs) != 1 {
		t.Fatal(found, err)
	}
	return found[0].Configs[0].Value
}

func TestControl_WritesOnlyWhatDiffers(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	c := newControl(t, cfg, client)
	if parts, err := client.Partitions(cfg.ControlTopic); err != nil || len(parts) != 1 || policyOf(t, client, cfg.ControlTopic) != "compact" {
		t.Errorf("topic with %d partitions, %v, %s; want one, compacted", len(parts), err, policyOf(t, client, cfg.ControlTopic))
	}
	a, b := rowtide.ModuleControl{Name: "a", Version: 1}, rowtide.ModuleControl{Name: "b", Version: 1}
	put(t, c, a, b)
	put(t, c, a, b)
	b.Settings.TTL = time.Hour
	put(t, c, a, b)
	put(t, c, a) // b is not named: it stays
	if n := offset(t, client, cfg.ControlTopic); n != 3 {
		t.Errorf("%d records, want 3", n)
	}
	// The next run knows what is there.
	next := newControl(t, cfg, client)
	if got := next.State(); len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("state %+v, want %+v and %+v", got, a, b)
	}
	put(t, next, a, b)
	if n := offset(t, client, cfg.ControlTopic); n != 3 {
		t.Errorf("%d records after a restart, want 3", n)
	}
}

func TestControl_TopicThatForgetsIsToldOf(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.CreateTopic(cfg.ControlTopic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: -1}, false); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	c, err := publisher.NewControl(cfg, client, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !strings.Contains(log.String(), "set its cleanup.policy to compact") || !strings.Contains(log.String(), cfg.ControlTopic) {
		t.Errorf("log %q, want the topic and the remedy", log.String())
	}
}

// Two daemons at once: neither takes the other's generation back.
func TestControl_GenerationNeverGoesBack(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	first, zombie := newControl(t, cfg, client), newControl(t, cfg, client)
	put(t, first, rowtide.ModuleControl{Name: "a", Generation: 7, Since: 70})
	put(t, zombie, rowtide.ModuleControl{Name: "a", Generation: 3, Since: 90, Settings: rowtide.ModuleSettings{TTL: time.Hour}})
	want := rowtide.ModuleControl{Name: "a", Generation: 7, Since: 70, Settings: rowtide.ModuleSettings{TTL: time.Hour}}
	if got := zombie.State(); len(got) != 1 || got[0] != want {
		t.Errorf("state %+v, want %+v", got, want)
	}
}

func TestControl_NewerFormatIsNotWrittenOver(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	c := newControl(t, cfg, client)
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for key, value := range map[string]string{"a": `{"format":2,"name":"a"}`, "b": "scribble"} {
		if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: cfg.ControlTopic, Key: sarama.StringEncoder(key), Value: sarama.StringEncoder(value)}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, c, rowtide.ModuleControl{Name: "b"})
	err = c.Put(testContext(t), []rowtide.ModuleControl{{Name: "a"}})
	if !errors.Is(err, rowtide.ErrNewerFormat) || !strings.Contains(err.Error(), "upgrade this daemon") {
		t.Errorf("err=%v, want ErrNewerFormat and the remedy", err)
	}
}

func letter(key string, v rowtide.Version) rowtide.DeadLetter {
	return rowtide.DeadLetter{
		Position: rowtide.Position{File: "binlog.000004", Pos: 157}, Version: v, Module: "event", Table: "shop.event", Op: rowtide.OpUpdate,
		Reason: "too large", Key: key, Row: json.RawMessage(`{"id":1}`), At: time.UnixMilli(1).UTC(),
	}
}

func newDeadLetters(t *testing.T, cfg publisher.Config, client sarama.Client) *publisher.DeadLetters {
	t.Helper()
	d, err := publisher.NewDeadLetters(cfg, client, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func scan(t *testing.T, cfg publisher.Config, client sarama.Client) map[string]rowtide.DeadLetter {
	t.Helper()
	out := map[string]rowtide.DeadLetter{}
	err := publisher.ScanDeadLetters(testContext(t), client, cfg, func(l rowtide.DeadLetter) error {
		out[l.ID()] = l
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDeadLetters_AreKeptUntilResolved(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	if got := scan(t, cfg, client); len(got) != 0 {
		t.Errorf("letters %v in a topic that does not exist", got)
	}
	d := newDeadLetters(t, cfg, client)
	if policyOf(t, client, cfg.DLQTopic) != "compact" {
		t.Error("the topic is not compacted")
	}
	if got := scan(t, cfg, client); len(got) != 0 {
		t.Errorf("letters %v in an empty topic", got)
	}
	one, two, three := letter("1", 1), letter("2", 2), letter("3", 3)
	for _, l := range []rowtide.DeadLetter{one, two, three, one} { // one again, as by a replay
		if err := d.Put(testContext(t), l); err != nil {
			t.Fatal(err)
		}
	}
	got := scan(t, cfg, client)
	if len(got) != 3 || got[one.ID()].Key != "1" || string(got[one.ID()].Row) != `{"id":1}` {
		t.Errorf("letters %+v, want three", got)
	}
	if err := d.Resolve(testContext(t), publisher.Dropped, one.ID(), three.ID()); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, cfg, client); len(got) != 1 || got[two.ID()].Key != "2" {
		t.Errorf("letters %+v, want the second", got)
	}
}

func TestDeadLetters_RowTooLargeIsLeftOut(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	limit := "2000"
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.CreateTopic(cfg.DLQTopic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: -1, ConfigEntries: map[string]*string{"max.message.bytes": &limit}}, false); err != nil {
		t.Fatal(err)
	}
	d := newDeadLetters(t, cfg, client)
	for i, size := range []int{5000, 3 << 20} { // for this topic, for any
		l := letter("large", rowtide.Version(i))
		l.Row = json.RawMessage(`"` + string(noise(size)) + `"`)
		if err := d.Put(testContext(t), l); err != nil {
			t.Fatal(err)
		}
		got := scan(t, cfg, client)[l.ID()]
		if got.Row != nil || !strings.Contains(got.Reason, "is too large to be kept here") || got.Key != "large" {
			t.Errorf("row of %d bytes: %+v, want the letter without its row", size, got)
		}
	}
	l := letter(string(noise(5000)), 9)
	if err := d.Put(testContext(t), l); err == nil || !strings.Contains(err.Error(), "topic "+cfg.DLQTopic+" refuses a record") || !strings.Contains(err.Error(), "raise max.message.bytes") {
		t.Errorf("err=%v, want the topic and the remedy", err)
	}
}

func TestDeadLetters_UnreadableOnesAreToldAfterTheOthers(t *testing.T) {
	cfg, client := keyedTopics(t, testenv.Kafka(t))
	d := newDeadLetters(t, cfg, client)
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: cfg.DLQTopic, Key: sarama.StringEncoder("x"), Value: sarama.StringEncoder(`{"format":9}`)}); err != nil {
		t.Fatal(err)
	}
	if err := d.Put(testContext(t), letter("1", 1)); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = publisher.ScanDeadLetters(testContext(t), client, cfg, func(rowtide.DeadLetter) error { n++; return nil })
	if n != 1 || !errors.Is(err, rowtide.ErrNewerFormat) || !strings.Contains(err.Error(), "letter x") {
		t.Errorf("%d letters, err=%v; want 1 and the unreadable one told", n, err)
	}
}
