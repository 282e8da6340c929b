package localsync_test

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

func TestHandler_ConfigTellsWhereSettingsComeFrom(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.Away, o.ReportEvery = localsync.AwayWait, -1 })
	n.events(newOrigin(), func(c *localsync.ModuleConfig[int64]) { c.TTL = time.Hour })
	n.events(newOrigin(), func(c *localsync.ModuleConfig[int64]) {
		c.Version, c.Pinned, c.Previous, c.Objects, c.LeaseWait = 2, true, 1, 100, localsync.NoLease
		c.Key = func(id int64) string { return strconv.FormatInt(id, 36) }
	})
	n.events(newOrigin(), func(c *localsync.ModuleConfig[int64]) { c.Name = "venue" })
	n.bus.control(rowtide.ModuleControl{Name: "event", Version: 1, Previous: 4, Settings: rowtide.ModuleSettings{TTL: 2 * time.Hour, OnError: "optional", Push: true}})

	d := askConfig(t, n)
	for _, c := range []struct{ got, want row }{
		{d.Options["Prefix"], row{"Prefix", "rowtide", "default", "", ""}},
		{d.Options["Away"], row{"Away", "wait", "code", "", ""}},
		{d.Options["ReportEvery"], row{"ReportEvery", "never", "code", "", ""}},
		{d.Options["Kafka"], row{"Kafka", "none", "default", "", ""}},
		{d.Options["Bus"], row{"Bus", "*localsync_test.fakeBus", "code", "", ""}},
		{d.Modules[0].rows["ttl"], row{"ttl", "2h", "daemon", "1h", ""}},
		{d.Modules[0].rows["on_error"], row{"on_error", "optional", "daemon", "keep", ""}},
		{d.Modules[0].rows["refresh"], row{"refresh", "1m", "default", "", ""}},
		{d.Modules[0].rows["push"], row{"push", "true", "daemon", "", ""}},
		{d.Modules[0].rows["version"], row{"version", "1", "default", "", ""}},
		{d.Modules[0].rows["objects"], row{"objects", "0", "default", "", ""}},
		{d.Modules[0].rows["lease_wait"], row{"lease_wait", "5s", "default", "", ""}},
		{d.Modules[0].rows["key"], row{"key", "as it is", "default", "", ""}},
		{d.Modules[1].rows["ttl"], row{"ttl", "24h", "default", "", "2h"}},
		{d.Modules[1].rows["version"], row{"version", "2", "code", "", "1"}},
		{d.Modules[1].rows["previous"], row{"previous", "1", "code", "", ""}},
		{d.Modules[0].rows["previous"], row{"previous", "4", "daemon", "0", ""}},
		{d.Modules[1].rows["objects"], row{"objects", "100", "code", "", ""}},
		{d.Modules[1].rows["lease_wait"], row{"lease_wait", "never", "code", "", ""}},
		{d.Modules[1].rows["key"], row{"key", "a function", "code", "", ""}},
		{d.Modules[2].rows["push"], row{"push", "not told", "default", "", ""}},
	} {
		if c.got != c.want {
			t.Errorf("setting %+v, want %+v", c.got, c.want)
		}
	}
	if d.Modules[0].Pinned || !d.Modules[1].Pinned {
		t.Errorf("modules %+v", d.Modules)
	}
}

// What the daemon says and this node cannot use is not in force, and told.
func TestHandler_ConfigTellsOfSettingsThatAreNotUsable(t *testing.T) {
	n := newNode(t)
	n.events(newOrigin())
	n.bus.control(rowtide.ModuleControl{Name: "event", Version: 1, Settings: rowtide.ModuleSettings{TTL: time.Hour, OnError: "panic"}})
	got := askConfig(t, n).Modules[0].rows
	if want := (row{"on_error", "keep", "default", "", "panic"}); got["on_error"] != want {
		t.Errorf("setting %+v, want %+v", got["on_error"], want)
	}
	if want := (row{"ttl", "24h", "default", "", "1h"}); got["ttl"] != want {
		t.Errorf("setting %+v, want %+v", got["ttl"], want)
	}
}

// A field that is added to the API must come to the page too.
func TestHandler_ConfigLeavesNothingOut(t *testing.T) {
	n := newNode(t)
	n.events(newOrigin())
	d := askConfig(t, n)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[localsync.Options]()) {
		if _, ok := d.Options[f.Name]; f.IsExported() && !ok {
			t.Errorf("the page has no option %s", f.Name)
		}
	}
	for of, rows := range map[reflect.Type]map[string]string{
		reflect.TypeFor[localsync.ModuleConfig[int64]](): {
			"Version": "version", "Previous": "previous", "TTL": "ttl", "Refresh": "refresh", "Empty": "empty.ttl", "OnError": "on_error", "MaxStale": "max_stale",
			"Batch": "batch", "LoadTimeout": "load_timeout", "LeaseWait": "lease_wait", "Objects": "objects", "Key": "key",
		},
		reflect.TypeFor[rowtide.ModuleSettings](): {
			"TTL": "ttl", "Refresh": "refresh", "EmptyTTL": "empty.ttl", "EmptyRefresh": "empty.refresh", "OnError": "on_error", "MaxStale": "max_stale", "Push": "push",
		},
	} {
		// Of the card's head, and of no node.
		elsewhere := []string{"Name", "Pinned", "Codec"}
		for _, f := range reflect.VisibleFields(of) {
			if _, ok := d.Modules[0].rows[rows[f.Name]]; !ok && !slices.Contains(elsewhere, f.Name) {
				t.Errorf("the page has no row for %s.%s", of.Name(), f.Name)
			}
		}
	}
}

type row struct{ Name, Value, From, Code, Daemon string }

type configPage struct {
	Options map[string]row
	Modules []struct {
		Version  int
		Pinned   bool
		Settings []row
		rows     map[string]row
	}
}

func askConfig(t *testing.T, n *node) configPage {
	t.Helper()
	var d struct {
		Options []row
		configPage
	}
	call(t, n.cache.Handler(), http.MethodGet, "/config", &d)
	index := func(rows []row) map[string]row {
		byName := map[string]row{}
		for _, r := range rows {
			byName[r.Name] = r
		}
		return byName
	}
	d.configPage.Options = index(d.Options)
	for i := range d.Modules {
		d.Modules[i].rows = index(d.Modules[i].Settings)
	}
	return d.configPage
}
