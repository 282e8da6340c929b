//go:build integration

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
)

// checkGet looks at good entries, one of each codec and layout.
func checkGet(t *testing.T, r *verifyRig) {
	t.Helper()
	values := map[string]string{
		"item":      `{"a":7,"b":"x7","title":"Näme 7","loud":"NÄME 7"}`,
		"pack":      `{"a":7,"b":"x7","name":"Näme 7","state":"on"}`,
		"raw":       `"Näme 7"`,
		"bare":      `{"a":7,"name":"Näme 7"}`,
		"tight":     `"Näme 7"`,
		"page":      `{"all":[{"a":7,"b":"x7"}],"n":1,"name":"Näme 7"}`,
		"page_pack": `{"a":7,"name":"Näme 7"}`,
	}
	for _, m := range r.cfg.Modules {
		g := r.get(exitClean, m.Name, r.id(m, 7), "--db")
		got, _ := json.Marshal(g.Value)
		if !samePayload(aggregator.CodecJSON, got, []byte(values[m.Name])) {
			t.Errorf("%s holds %s, want %s", m.Name, got, values[m.Name])
		}
		if g.State != stateValue || g.Source != "change" || g.Version == 0 || !strings.Contains(g.Position, "binlog.0") || g.TTLSeconds == nil || *g.TTLSeconds < 3600 || g.Bytes == 0 {
			t.Errorf("%s: %+v", m.Name, g)
		}
		if (g.BuiltAt != nil) != (m.Layout == aggregator.LayoutEnvelope) || g.Layout != m.Layout || g.Codec != m.Codec {
			t.Errorf("%s: layout %s, codec %s, built at %v", m.Name, g.Layout, g.Codec, g.BuiltAt)
		}
		if db := g.Database; db == nil || !db.Agrees || db.State != stateValue {
			t.Errorf("%s: the database says %+v", m.Name, db)
		}
		if g := r.get(exitClean, m.Name, r.id(m, 58), "--db"); g.State != stateEmpty || !g.Deleted || g.Database.State != stateAbsent {
			t.Errorf("%s, deleted: %+v", m.Name, g)
		}
		if g := r.get(exitDiffers, m.Name, r.id(m, 999)); g.State != stateAbsent {
			t.Errorf("%s, never there: %+v", m.Name, g)
		}
		if g := r.get(exitClean, m.Name, r.id(m, 999), "--db"); g.State != stateAbsent || !g.Database.Agrees {
			t.Errorf("%s, never there, nor in the database: %+v", m.Name, g)
		}
		r.spoil(m, r.id(m, 999), rowtide.FlagFill, "{}")
		if g := r.get(exitDiffers, m.Name, r.id(m, 999), "--db"); g.Source != "fill" || g.Database.Agrees {
			t.Errorf("%s, a fill without a row: %+v", m.Name, g)
		}
		r.spoil(m, r.id(m, 999), rowtide.FlagEmpty, "")
	}
	res := rowtideCommand(t, nil, "get", "-c", r.path, "item", r.id(r.cfg.Modules[0], 7), "--db")
	for _, want := range []string{"redis key", r.name("item", "7:x7"), "value", `"title":"Näme 7"`, "a change, from the log", "left", "agrees", "binlog.0"} {
		if !strings.Contains(res.stdout, want) {
			t.Errorf("get prints no %q:\n%s", want, res.stdout)
		}
	}
	res = rowtideCommand(t, nil, "get", "-c", r.path, "--json", "item", r.id(r.cfg.Modules[0], 7))
	var g gotten
	if err := json.Unmarshal([]byte(res.stdout), &g); err != nil || res.code != exitClean || g.Version == 0 {
		t.Errorf("get --json exits %d: %s%s, %v", res.code, res.stdout, res.stderr, err)
	}
	res = rowtideCommand(t, nil, "get", "-c", r.path, "itme", "1")
	if want := `there is no module "itme"; the config has item, pack, raw`; res.code != exitConfig || !strings.Contains(res.stderr, want) {
		t.Errorf("unknown module exits %d with %s, want %s", res.code, res.stderr, want)
	}
	if res = rowtideCommand(t, nil, "get", "-c", r.path, "item"); res.code != exitConfig || !strings.Contains(res.stderr, "wants a module and a key") {
		t.Errorf("get without a key exits %d: %s", res.code, res.stderr)
	}
	r.set(r.name("item", "spoilt"), fmt.Sprintf("%050d", 1))
	if g := r.get(exitClean, "item", "spoilt"); g.State != stateUnreadable || g.Problem == "" {
		t.Errorf("foreign bytes: %+v", g)
	}
	if err := r.rdb.Del(t.Context(), r.name("item", "spoilt")).Err(); err != nil {
		t.Fatal(err)
	}
}
