//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// letterbox is a topic of dead letters with a config that names it.
type letterbox struct {
	t      *testing.T
	path   string
	client sarama.Client
	cfg    publisher.Config
	asked  []string // "module key"
	reread error
}

func newLetterbox(t *testing.T, ls ...rowtide.DeadLetter) *letterbox {
	t.Helper()
	prefix := testenv.UniqueName(t, "p")
	b := &letterbox{t: t, path: filepath.Join(t.TempDir(), "rowtide.yaml")}
	b.cfg = publisher.Config{Brokers: testenv.Kafka(t), Prefix: prefix}.WithDefaults()
	text := fmt.Sprintf("source: {addr: \"db:1\", user: u, server_id: 7}\nredis: {addrs: [\"r:1\"], prefix: %s}\nkafka: {brokers: [%q]}\nmodules:\n  - {name: event, key: \"{id}\", from: {table: shop.event}}\n",
		prefix, strings.Join(b.cfg.Brokers, ","))
	if err := os.WriteFile(b.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.client, err = sarama.NewClient(b.cfg.Brokers, publisher.ProducerConfig()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	if len(ls) == 0 {
		return b
	}
	dlq, err := publisher.NewDeadLetters(b.cfg, b.client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer dlq.Close()
	for _, l := range ls {
		if err := dlq.Put(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// run is a run of `rowtide dlq` with a daemon that takes note of requests.
func (b *letterbox) run(args ...string) (string, error) {
	b.t.Helper()
	c := newDLQ(func(_ context.Context, _ config.Config, module string, keys []string) error {
		for _, k := range keys {
			b.asked = append(b.asked, module+" "+k)
		}
		return b.reread
	})
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append(args, "-c", b.path))
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(b.t.Context())
	return out.String(), err
}

func (b *letterbox) left() []string {
	b.t.Helper()
	var ids []string
	err := publisher.ScanDeadLetters(b.t.Context(), b.client, b.cfg, func(l rowtide.DeadLetter) error {
		ids = append(ids, l.ID())
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return ids
}

func deadLetter(module, key string) rowtide.DeadLetter {
	return rowtide.DeadLetter{
		Position: rowtide.Position{File: "binlog.000004", Pos: 157}, Version: 7, Module: module, Table: "shop." + module, Op: rowtide.OpUpdate,
		Reason: "value of 9 MB\nis too large", Key: key, Row: json.RawMessage(`{"id":1}`), At: time.UnixMilli(1_763_712_000_000),
	}
}

func TestDLQ_ListShowsTheLetters(t *testing.T) {
	b := newLetterbox(t)
	if out, err := b.run("list"); err != nil || !strings.Contains(out, "no dead letters in topic "+b.cfg.DLQTopic) {
		t.Errorf("without a topic: %q, %v", out, err)
	}
	one, two := deadLetter("event", "1"), deadLetter("page", "2")
	b = newLetterbox(t, one, two)
	out, err := b.run("list")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 3 || !strings.HasPrefix(lines[0], "ID ") || !strings.HasPrefix(lines[1], one.ID()) ||
		!strings.Contains(lines[1], "shop.event") || !strings.Contains(lines[1], "binlog.000004:157") || !strings.Contains(lines[1], "value of 9 MB is too large") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = b.run("list", "--json", "--module", "page")
	got, bad := rowtide.DecodeDeadLetter([]byte(out))
	if err != nil || bad != nil || got.ID() != two.ID() || string(got.Row) != `{"id":1}` {
		t.Errorf("%v, %v: %s", err, bad, out)
	}
}

func TestDLQ_DropRemovesWhatWasNamed(t *testing.T) {
	one, two, three := deadLetter("event", "1"), deadLetter("event", "2"), deadLetter("page", "3")
	b := newLetterbox(t, one, two, three)
	for _, args := range [][]string{{"drop"}, {"drop", "--all", one.ID()}, {"drop", "--module", "event", one.ID()}, {"retry"}} {
		var usage *usageError
		if _, err := b.run(args...); !errors.As(err, &usage) {
			t.Errorf("%v: err=%v, want a fault of the command line", args, err)
		}
	}
	if _, err := b.run("drop", one.ID(), "nonsense"); err == nil || !strings.Contains(err.Error(), "no letter nonsense") {
		t.Errorf("err=%v, want the id that no letter has", err)
	}
	if got := b.left(); len(got) != 3 {
		t.Fatalf("letters %v are left after a slip, want all", got)
	}
	if out, err := b.run("drop", one.ID()); err != nil || out != "1 letters dropped\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := b.run("drop", "--all", "--module", "page"); err != nil {
		t.Error(err)
	}
	if got := b.left(); !slices.Equal(got, []string{two.ID()}) || len(b.asked) != 0 {
		t.Errorf("letters %v are left, %v asked for; want %s and none", got, b.asked, two.ID())
	}
}

func TestDLQ_RetryAsksTheDaemonThenRemoves(t *testing.T) {
	keyless := deadLetter("event", "")
	again := deadLetter("event", "1")
	again.Version++
	b := newLetterbox(t, deadLetter("event", "1"), again, deadLetter("page", "3"), keyless)
	b.reread = errors.New("the source is away")
	if _, err := b.run("retry", "--all"); !errors.Is(err, b.reread) || !strings.Contains(err.Error(), "retry letters of module event") {
		t.Errorf("err=%v, want what was in the way", err)
	}
	if got := b.left(); len(got) != 4 {
		t.Fatalf("letters %v are left although nothing was asked for", got)
	}
	b.reread, b.asked = nil, nil
	out, err := b.run("retry", "--all")
	if err == nil || !strings.Contains(err.Error(), "letter "+keyless.ID()+" has no key: run rowtide backfill for module event") || out != "3 letters retried\n" {
		t.Errorf("%q, err=%v; want the letter that cannot be retried", out, err)
	}
	if want := []string{"event 1", "page 3"}; !slices.Equal(b.asked, want) {
		t.Errorf("asked for %v, want %v", b.asked, want)
	}
	if got := b.left(); !slices.Equal(got, []string{keyless.ID()}) {
		t.Errorf("letters %v are left, want the one without a key", got)
	}
}
