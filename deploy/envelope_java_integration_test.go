//go:build integration

package deploy_test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// vectorRecords are the published records and what a consumer prints of them.
func vectorRecords(t *testing.T) (records [][]byte, want []string) {
	t.Helper()
	var vectors []struct{ Hex string }
	if err := json.Unmarshal([]byte(read(t, "testdata/wire/records.json")), &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		b, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := rowtide.DecodeBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, b)
		for _, i := range batch.Items {
			value := "is in Redis"
			if i.Empty {
				value = "EMPTY"
			} else if i.Value != nil {
				value = string(i.Value)
			}
			want = append(want, fmt.Sprintf("%s:%d:%s %016x %s", i.Key.Module, i.Key.Version, i.Key.ID, uint64(i.Version), value))
		}
	}
	return records, want
}

func TestEnvelopeDoc_JavaFollowsARealBroker(t *testing.T) {
	jars, ok := testenv.KafkaJars()
	if !ok {
		t.Skip("Kafka's client for Java could not be downloaded on this machine")
	}
	if _, err := exec.LookPath("javac"); err != nil {
		t.Fatal("no Java compiler is installed: run make setup")
	}
	m := regexp.MustCompile("(?s)```java\n(.*?)```").FindStringSubmatch(read(t, "docs/envelope.md"))
	if m == nil {
		t.Fatal("docs/envelope.md has no consumer in Java")
	}
	if n := strings.Count(m[1], "\n"); n > 30 {
		t.Errorf("the consumer has %d lines, want at most 30", n)
	}
	source := filepath.Join(t.TempDir(), "Follow.java")
	if err := os.WriteFile(source, []byte(m[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	brokers, topic := testenv.Kafka(t), testenv.UniqueName(t, "java")
	conf := sarama.NewConfig()
	conf.Producer.Return.Successes = true
	client, err := sarama.NewClient(brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}

	java := exec.CommandContext(t.Context(), "java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", filepath.Join(jars, "*"), source, strings.Join(brokers, ","), topic)
	var stderr strings.Builder
	java.Stderr = &stderr
	out, err := java.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := java.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = java.Process.Kill()
		_ = java.Wait()
	})
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	timeout := time.After(time.Minute)
	next := func() string {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the consumer ended: %s", stderr.String())
			}
			return line
		case <-timeout:
			t.Fatal("the consumer says nothing")
		}
		return ""
	}
	if got := next(); got != "following" {
		t.Fatalf("%q, want that it follows", got)
	}
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	records, want := vectorRecords(t)
	for _, r := range records {
		if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(r)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range want {
		got = append(got, next())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
