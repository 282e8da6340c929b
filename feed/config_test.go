package feed_test

import (
	"strings"
	"testing"

	"github.com/rowtide/rowtide/feed"
)

func TestConfig_ValidateNamesEveryFault(t *testing.T) {
	err := feed.Config{
		Topics: []string{"a", "a"}, Epoch: 4096, TimeZone: "Moon/Base", StartAt: "binlog.000001:4",
		Types: []string{"price decimal", "shop.event.price money", "shop.event.price decimal(10,2)"},
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"source.format is missing", "source.brokers is missing", "source.topics[1]", "source.epoch 4096",
		"source.time_zone", "source.start_at", "source.types[0]", "source.types[1]",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 8 {
		t.Errorf("%d faults, want 8:\n%v", n, err)
	}
}

func TestConfig_DefaultsAreValid(t *testing.T) {
	c := feed.Config{Format: feed.FormatCanal, Brokers: []string{"k:9092"}, Topics: []string{"cdc"}}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Format = "avro"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `"avro"`) {
		t.Errorf("error %v, want one about the format", err)
	}
}
