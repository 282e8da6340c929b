package localsync_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

func TestHandler_ConfigTellsWhereSettingsComeFrom(t *testing.T) {
	n := newNode(t)
	n.events(newOrigin(), func(c *localsync.ModuleConfig[int64]) { c.TTL = time.Hour })
	n.events(newOrigin(), func(c *localsync.ModuleConfig[int64]) { c.Version, c.Pinned = 2, true })
	n.bus.control(rowtide.ModuleControl{Name: "event", Version: 1, Settings: rowtide.ModuleSettings{TTL: 2 * time.Hour, OnError: "optional"}})

	type row struct{ Name, Value, From, Code, Daemon string }
	var d struct {
		Options []row
		Modules []struct {
			Version  int
			Pinned   bool
			Settings []row
		}
	}
	call(t, n.cache.Handler(), http.MethodGet, "/config", &d)
	find := func(rows []row, name string) row {
		for _, r := range rows {
			if r.Name == name {
				return r
			}
		}
		t.Fatalf("config has no %s in %+v", name, rows)
		return row{}
	}
	for _, c := range []struct{ got, want row }{
		{find(d.Options, "Prefix"), row{"Prefix", "rowtide", "code", "", ""}},
		{find(d.Modules[0].Settings, "ttl"), row{"ttl", "2h", "daemon", "1h", ""}},
		{find(d.Modules[0].Settings, "on_error"), row{"on_error", "optional", "daemon", "keep", ""}},
		{find(d.Modules[0].Settings, "refresh"), row{"refresh", "1m", "code", "", ""}},
		{find(d.Modules[1].Settings, "ttl"), row{"ttl", "24h", "code", "", "2h"}},
	} {
		if c.got != c.want {
			t.Errorf("setting %+v, want %+v", c.got, c.want)
		}
	}
	if d.Modules[0].Pinned || !d.Modules[1].Pinned {
		t.Errorf("modules %+v", d.Modules)
	}
}
