package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/config"
)

func TestRole_ReadersAreElectedUnlessToldOtherwise(t *testing.T) {
	for text, want := range map[string]bool{
		"":               false,
		"role: all\n":    false,
		"role: reader\n": true,
		"role: reader\nelection: {enabled: false}\n": false,
		"election: {enabled: true}\n":                true,
		"role: applier\n":                            false,
	} {
		c := load(t, text+minimal)
		if *c.Election.Enabled != want || c.Election.Lease != config.DefaultLease {
			t.Errorf("%q: election %t with a lease of %s, want %t", text, *c.Election.Enabled, c.Election.Lease, want)
		}
	}
	t.Setenv("ROWTIDE_ROLE", "reader") // what --role does
	t.Setenv("ROWTIDE_ELECTION_LEASE", "5s")
	if c := load(t, "role: applier\n"+minimal); c.Role != config.RoleReader || !*c.Election.Enabled || c.Election.Lease != 5*time.Second {
		t.Errorf("role %s, election %t, lease %s", c.Role, *c.Election.Enabled, c.Election.Lease)
	}
}

func TestRole_Faults(t *testing.T) {
	for text, want := range map[string]string{
		"role: writer\n":                                     "want all, reader or applier",
		"election: {lease: 10ms}\n":                          "want 500ms to 1m",
		"role: applier\nelection: {enabled: true}\n":         "appliers share the work",
		"role: reader\ncheckpoint: {store: file, path: x}\n": "is not shared; use redis",
	} {
		if _, err := config.Load(write(t, text+minimal)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	feed := strings.Replace(minimal, `{addr: "db:3306", user: rowtide, server_id: 7}`, `{kind: kafka, brokers: ["k:9092"], topics: [t], format: maxwell-json}`, 1)
	if _, err := config.Load(write(t, "role: applier\n"+feed)); err == nil || !strings.Contains(err.Error(), "is read by role all only") {
		t.Errorf("role applier over a feed: %v", err)
	}
}
