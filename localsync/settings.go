package localsync

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// pageConfig is what config serves.
type pageConfig struct {
	Node     string           `json:"node"`
	Payloads bool             `json:"payloads"`
	Options  []setting        `json:"options"`
	Modules  []moduleSettings `json:"modules"`
}

type moduleSettings struct {
	Name     string    `json:"name"`
	Version  uint16    `json:"version"`
	Pinned   bool      `json:"pinned"`
	Loader   bool      `json:"loader"`
	Settings []setting `json:"settings"`
}

// setting is one setting in force. From is "code", or "daemon" for what came over
// the control topic; then Code is what the code has. Daemon is what the daemon
// says and a pinned module does not follow.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	From   string `json:"from"`
	Code   string `json:"code,omitempty"`
	Daemon string `json:"daemon,omitempty"`
}

// followed are the settings that the daemon may give.
var followed = []struct {
	name string
	get  func(*policy) any
	said func(*rowtide.ModuleSettings) any
}{
	{"ttl", func(p *policy) any { return p.value.TTL }, func(s *rowtide.ModuleSettings) any { return s.TTL }},
	{"refresh", func(p *policy) any { return p.value.Refresh }, func(s *rowtide.ModuleSettings) any { return s.Refresh }},
	{"empty.ttl", func(p *policy) any { return p.empty.TTL }, func(s *rowtide.ModuleSettings) any { return s.EmptyTTL }},
	{"empty.refresh", func(p *policy) any { return p.empty.Refresh }, func(s *rowtide.ModuleSettings) any { return s.EmptyRefresh }},
	{"on_error", func(p *policy) any { return p.onError.name() }, func(s *rowtide.ModuleSettings) any { return s.OnError }},
	{"max_stale", func(p *policy) any { return p.maxStale }, func(s *rowtide.ModuleSettings) any { return s.MaxStale }},
}

// own are those that only the code has.
var own = []struct {
	name string
	get  func(*policy) any
}{
	{"batch", func(p *policy) any { return p.batch }},
	{"load_timeout", func(p *policy) any { return p.timeout }},
	{"previous", func(p *policy) any { return p.previous }},
}

// text spells durations as in the daemon's file: 12h, not 12h0m0s.
func text(v any) string {
	s := fmt.Sprint(v)
	if _, ok := v.(time.Duration); ok && strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
	}
	return s
}

func (o OnError) name() string {
	if o == Optional {
		return "optional"
	}
	return "keep"
}

func (h *handler) config() *pageConfig {
	o := &h.c.opt
	code := func(name string, v any) setting { return setting{Name: name, Value: text(v), From: "code"} }
	p := &pageConfig{Node: o.Node, Payloads: h.payloads, Options: []setting{
		code("Redis", redisAddr(o.Redis)), code("Brokers", o.Brokers), code("Topic", o.Topic), code("ControlTopic", o.ControlTopic),
		code("Prefix", o.Prefix), code("MaxBytes", o.MaxBytes), code("MaxFloors", o.MaxFloors), code("FloorAge", o.FloorAge),
		code("ReplicaLag", o.ReplicaLag), code("Silence", o.Silence), code("RedisTimeout", o.RedisTimeout), code("ReportEvery", o.ReportEvery),
	}}
	h.c.mu.Lock()
	controls := h.c.controls // replaced as a whole, never changed
	h.c.mu.Unlock()
	for _, m := range *h.c.modules.Load() {
		p.Modules = append(p.Modules, m.settings(controls[m.policy.name].Settings))
	}
	slices.SortFunc(p.Modules, func(a, b moduleSettings) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return p
}

func (m *core) settings(said rowtide.ModuleSettings) moduleSettings {
	rules := m.rules()
	out := moduleSettings{Name: m.policy.name, Version: m.policy.version, Pinned: m.policy.pinned, Loader: m.load != nil}
	for _, f := range followed {
		s := setting{Name: f.name, Value: text(f.get(rules)), From: "code"}
		if v := f.said(&said); v != time.Duration(0) && v != "" {
			if m.policy.pinned {
				s.Daemon = text(v)
			} else {
				s.From, s.Code = "daemon", text(f.get(&m.policy))
			}
		}
		out.Settings = append(out.Settings, s)
	}
	for _, f := range own {
		out.Settings = append(out.Settings, setting{Name: f.name, Value: text(f.get(rules)), From: "code"})
	}
	return out
}
