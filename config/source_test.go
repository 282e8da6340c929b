package config_test

import (
	"strings"
	"testing"

	"github.com/rowtide/rowtide/config"
)

const kafkaSource = `
source: {kind: kafka, format: maxwell-json, brokers: ["k:9092"], topics: [cdc], types: ["shop.event.price decimal(10,2)"]}
redis: {addrs: ["redis:6379"]}
kafka: {brokers: ["kafka:9092"]}
modules:
  - name: event
    key: "{id}"
    from: {table: shop.event}
`

// The keys of a feed stand beside those of a log, and only one kind is checked.
func TestLoad_SourceOfKindKafka(t *testing.T) {
	c := load(t, kafkaSource)
	f := c.Source.Feed
	if c.Source.Kind != config.KindKafka || f.Format != "maxwell-json" || f.Brokers[0] != "k:9092" || f.Topics[0] != "cdc" || f.Epoch != 1 || f.StartAt != "earliest" {
		t.Errorf("loaded %+v", c.Source)
	}
	if f.Types[0] != "shop.event.price decimal(10,2)" {
		t.Errorf("types %q", f.Types)
	}
	t.Setenv("ROWTIDE_SOURCE_TOPICS", "a,b")
	t.Setenv("ROWTIDE_SOURCE_START_AT", "latest")
	if f := load(t, kafkaSource).Source.Feed; len(f.Topics) != 2 || f.StartAt != "latest" {
		t.Errorf("from the environment: topics %q, start_at %q", f.Topics, f.StartAt)
	}
	if got := load(t, minimal).Source.Kind; got != config.KindBinlog {
		t.Errorf("kind %q by default, want binlog", got)
	}
}

func TestLoad_FaultsOfASourceOfKindKafka(t *testing.T) {
	rebuild := strings.Replace(kafkaSource, "from: {table: shop.event}",
		`rebuild: {one: "SELECT id FROM shop.event WHERE id IN (:keys)"}`+"\n    watch: [{table: shop.event, key: \"{id}\"}]", 1)
	for _, tt := range []struct{ name, text, want string }{
		{"kind", strings.Replace(kafkaSource, "kind: kafka", "kind: pulsar", 1), `source.kind "pulsar": want binlog or kafka`},
		{"format", strings.Replace(kafkaSource, "maxwell-json", "avro", 1), `source.format "avro"`},
		{"no topics", strings.Replace(kafkaSource, "topics: [cdc]", "topics: []", 1), "source.topics is missing"},
		{"a file position", strings.Replace(kafkaSource, "kind: kafka", `kind: kafka, start_at: "binlog.000001:4"`, 1), "source.start_at"},
		{"rebuild without a database", rebuild, "set source.addr and source.user"},
		{"rebuild of a keyed feed", strings.Replace(rebuild, "kind: kafka", `kind: kafka, keyed: true, addr: "db:3306", user: u`, 1), "source.keyed"},
		{"a database without a user", strings.Replace(kafkaSource, "kind: kafka", `kind: kafka, addr: "db:3306"`, 1), "source.user is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Load(write(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := config.Load(write(t, strings.Replace(rebuild, "kind: kafka", `kind: kafka, addr: "db:3306", user: u`, 1))); err != nil {
		t.Errorf("rebuild with a database: %v", err)
	}
}
