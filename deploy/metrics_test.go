package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/internal/sidecar"
	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/localsync/localprom"
	"github.com/rowtide/rowtide/stockapi"
)

// metric is what promobserver registers under one name.
type metric struct {
	kind   string // counter, gauge, histogram
	labels []string
}

// registered gathers the metrics after each hook has been called once, since a
// metric with labels shows up only then.
func registered(t *testing.T) map[string]metric {
	t.Helper()
	reg := prometheus.NewRegistry()
	p := promobserver.New(reg)
	p.Received(&rowtide.Tx{CommittedAt: time.Now()})
	p.Connected()
	p.Disconnected(errors.New("away"))
	p.Flushed(1, 1, time.Second, time.Now())
	p.Rebuilt("event", 1, time.Second)
	p.SetAside("event", 1)
	p.Raised("event")
	p.Overwrote("event", overwrite.Written, 1)
	p.Broadcast(1, time.Second)
	p.RedisAway(nil)
	p.KafkaAway(nil)
	promobserver.NewFeed(reg, p).PassedOver("ddl")
	c := promobserver.NewChanges(reg, p)
	c.Claimed(0, true)
	c.Behind(0, 0)
	promobserver.NewNode(reg, sidecar.New(sidecar.Config{}, nil, nil, "", nil))
	promobserver.NewFleet(reg, func() ([]localsync.NodeReport, error) {
		return []localsync.NodeReport{{Stats: localsync.Stats{Modules: []localsync.ModuleStats{{Name: "event"}}}}}, nil
	})
	webNode(t, reg)
	s := promobserver.NewStock(reg)
	s.Operation("hold", "ok", time.Second)
	s.Relayed(stockapi.Cell{}, 1, 0, time.Second)
	s.RelayFailed(stockapi.Cell{}, nil)
	s.LedgerBatch(0, 1, 1, time.Second, time.Second)
	s.LedgerRetry(0, nil)
	s.LedgerStopped(0, nil)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]metric{}
	for _, f := range families {
		m := metric{kind: strings.ToLower(f.GetType().String())}
		for _, l := range f.GetMetric()[0].GetLabel() {
			m.labels = append(m.labels, l.GetName())
		}
		out[f.GetName()] = m
	}
	return out
}

// webNode opens a cache with the metrics of localprom, one module and one change.
func webNode(t *testing.T, reg prometheus.Registerer) {
	t.Helper()
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr()})
	obs := localprom.New(reg)
	cache, err := localsync.Open(t.Context(), localsync.Options{Redis: rdb, Bus: silentBus{}, Observer: obs, ReportEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close(context.WithoutCancel(t.Context())); rdb.Close() })
	if _, err := localsync.NewModule(cache, localsync.ModuleConfig[int]{Name: "event"}, localsync.Bytes(), nil); err != nil {
		t.Fatal(err)
	}
	obs.Loaded("event", 1, time.Second, nil)
	obs.Applied(rowtide.Invalidation{}, &rowtide.Batch{CommittedAt: time.Now()})
}

type silentBus struct{}

func (silentBus) Open(context.Context) (int32, error)             { return 1, nil }
func (silentBus) Run(ctx context.Context, _ localsync.Sink) error { <-ctx.Done(); return nil }
func (silentBus) Close() error                                    { return nil }

// TestRegistered_HasEveryNameOfTheSource fails when promobserver grows metrics
// that the function above does not bring to light.
func TestRegistered_HasEveryNameOfTheSource(t *testing.T) {
	known := registered(t)
	files, err := filepath.Glob(filepath.Join(root, "internal/promobserver/*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files=%v err=%v", files, err)
	}
	files = append(files, filepath.Join(root, "localsync/localprom/localprom.go"))
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`"(rowtide_[a-z0-9_]+)"`).FindAllStringSubmatch(string(b), -1) {
			if _, ok := known[name[1]]; !ok {
				t.Errorf("%s makes %s, which registered does not gather", f, name[1])
			}
		}
	}
}

// series reports whether a name in a query is one that Prometheus will store.
func series(known map[string]metric, name string) bool {
	if name == "up" {
		return true
	}
	if m, ok := known[name]; ok {
		return m.kind != "histogram"
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && known[base].kind == "histogram" {
			return true
		}
	}
	return false
}

var (
	promNoise = regexp.MustCompile(`"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	promName  = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\b\s*\(?`)
)

// checkQuery finds the metric names of a query: whatever is neither a function
// nor an operator.
func (r *tree) checkQuery(where, query string) {
	known := registered(r.t)
	found := false
	for _, m := range promName.FindAllString(promNoise.ReplaceAllString(query, " "), -1) {
		m = strings.TrimSpace(m)
		if strings.HasSuffix(m, "(") || slices.Contains([]string{"and", "or", "unless", "bool", "offset"}, m) {
			continue
		}
		found = true
		if !series(known, m) {
			r.fault("%s: %s is no metric of ours", where, m)
		}
	}
	if !found {
		r.fault("%s: query %q names no metric", where, query)
	}
}

func (r *tree) checkPrometheus(c *compose) {
	s, ok := c.Services["prometheus"]
	if !ok {
		r.fault("there is no service prometheus")
		return
	}
	mounts := s.mounts()
	path := ""
	for _, arg := range s.Command {
		if p, ok := strings.CutPrefix(arg, "--config.file="); ok {
			path = p
		}
	}
	var prom struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	r.parse(mounts[path], r.read(mounts[path]), &prom)
	if len(prom.ScrapeConfigs) == 0 || len(prom.RuleFiles) == 0 {
		r.fault("%s scrapes nothing or has no rules", mounts[path])
	}
	for _, sc := range prom.ScrapeConfigs {
		for _, static := range sc.StaticConfigs {
			for _, target := range static.Targets {
				host, port, err := net.SplitHostPort(target)
				if err != nil || !slices.Contains(c.Services[host].Expose, port) {
					r.fault("prometheus scrapes %s, which no service exposes", target)
				}
			}
		}
	}
	for _, file := range prom.RuleFiles {
		if local, ok := mounts[file]; ok {
			r.checkAlerts(local)
		} else {
			r.fault("prometheus: nothing is mounted at the rule file %s", file)
		}
	}
}

func (r *tree) checkAlerts(path string) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	r.parse(path, r.read(path), &rules)
	operations := r.read("docs/operations.md")
	for _, g := range rules.Groups {
		for _, rule := range g.Rules {
			where := fmt.Sprintf("%s: %s", path, rule.Alert)
			if _, err := time.ParseDuration(rule.For); rule.Alert == "" || err != nil {
				r.fault("%s: an alert has a name and a for", where)
			}
			r.checkQuery(where, rule.Expr)
			do, _ := strings.CutPrefix(rule.Annotations["do"], "docs/operations.md, ")
			heading := strings.TrimRight(strings.SplitN(do, ":", 2)[0], ".")
			if !strings.Contains(operations, "\n## "+heading+"\n") {
				r.fault("%s: docs/operations.md has no heading %q", where, heading)
			}
		}
	}
}

func (r *tree) checkGrafana(c *compose) {
	s := c.Services["grafana"]
	mounts := s.mounts()
	local, ok := mounts["/var/lib/grafana/dashboards"]
	var provider struct {
		Providers []struct {
			Options struct {
				Path string `yaml:"path"`
			} `yaml:"options"`
		} `yaml:"providers"`
	}
	const providers = "deploy/grafana/provisioning/dashboards/rowtide.yml"
	r.parse(providers, r.read(providers), &provider)
	if !ok || len(provider.Providers) != 1 || provider.Providers[0].Options.Path != "/var/lib/grafana/dashboards" {
		r.fault("grafana: dashboards are not mounted where %s looks for them", providers)
		return
	}
	files, err := filepath.Glob(filepath.Join(root, local, "*.json"))
	if err != nil || len(files) == 0 {
		r.fault("grafana: there is no dashboard in %s", local)
	}
	for _, f := range files {
		r.checkDashboard(local + "/" + filepath.Base(f))
	}
}

type dashboard struct {
	Title      string `json:"title"`
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID         int    `json:"id"`
		Title      string `json:"title"`
		Datasource struct {
			UID string `json:"uid"`
		} `json:"datasource"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

func (r *tree) checkDashboard(path string) {
	var d dashboard
	if err := json.Unmarshal([]byte(r.read(path)), &d); err != nil {
		r.fault("parse %s: %v", path, err)
		return
	}
	if d.UID == "" || d.Title == "" || len(d.Panels) == 0 {
		r.fault("%s: want a uid, a title and panels", path)
	}
	for _, v := range d.Templating.List {
		name := regexp.MustCompile(`label_values\((\w+),`).FindStringSubmatch(v.Definition)
		if name == nil || !series(registered(r.t), name[1]) {
			r.fault("%s: variable %s: %q asks for no metric of ours", path, v.Name, v.Definition)
		}
	}
	sources := r.read("deploy/grafana/provisioning/datasources/prometheus.yml")
	ids := map[int]bool{}
	for _, p := range d.Panels {
		where := fmt.Sprintf("%s: panel %q", path, p.Title)
		if ids[p.ID] || len(p.Targets) == 0 {
			r.fault("%s: its id is used twice or it has no query", where)
		}
		ids[p.ID] = true
		if !strings.Contains(sources, "uid: "+p.Datasource.UID+"\n") {
			r.fault("%s: data source %q is not provisioned", where, p.Datasource.UID)
		}
		for _, q := range p.Targets {
			r.checkQuery(where, q.Expr)
		}
	}
}
