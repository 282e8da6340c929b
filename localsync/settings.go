package localsync

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
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

// setting is one setting in force. From is "code", "default" for what the code
// leaves out, or "daemon" for what came over the control topic; then Code is what
// the code has. Daemon is what the daemon says and the node does not follow.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	From   string `json:"from"`
	Code   string `json:"code,omitempty"`
	Daemon string `json:"daemon,omitempty"`
}

// options are those of Open. show is for what text cannot spell.
var options = []struct {
	name string
	get  func(*Options) any
	show func(*Options) string
}{
	{"Redis", func(o *Options) any { return o.Redis }, func(o *Options) string { return redisAddr(o.Redis) }},
	{"Brokers", func(o *Options) any { return o.Brokers }, nil},
	{"Kafka", func(o *Options) any { return o.Kafka }, showKafka},
	{"Bus", func(o *Options) any { return o.Bus }, func(o *Options) string { return typeName(o.Bus) }},
	{"Topic", func(o *Options) any { return o.Topic }, nil},
	{"ControlTopic", func(o *Options) any { return o.ControlTopic }, nil},
	{"Prefix", func(o *Options) any { return o.Prefix }, nil},
	{"MaxBytes", func(o *Options) any { return o.MaxBytes }, nil},
	{"MaxFloors", func(o *Options) any { return o.MaxFloors }, nil},
	{"FloorAge", func(o *Options) any { return o.FloorAge }, nil},
	{"ReplicaLag", func(o *Options) any { return o.ReplicaLag }, nil},
	{"Silence", func(o *Options) any { return o.Silence }, nil},
	{"RedisTimeout", func(o *Options) any { return o.RedisTimeout }, nil},
	{"Node", func(o *Options) any { return o.Node }, nil},
	{"ReportEvery", func(o *Options) any { return o.ReportEvery }, nil},
	{"NoHints", func(o *Options) any { return o.NoHints }, nil},
	{"Away", func(o *Options) any { return o.Away }, func(o *Options) string { return o.Away.name() }},
	{"Observer", func(o *Options) any { return o.Observer }, func(o *Options) string { return typeName(o.Observer) }},
	{"Logger", func(o *Options) any { return o.Logger }, func(o *Options) string { return typeName(o.Logger.Handler()) }},
	{"Now", func(o *Options) any { return o.Now }, func(o *Options) string {
		if o.realTime {
			return "time.Now"
		}
		return "the program's own"
	}},
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
	{"lease_wait", func(p *policy) any { return p.leaseWait }},
	{"objects", func(p *policy) any { return p.objects }},
}

// text spells durations as in the daemon's file: 12h, not 12h0m0s.
func text(v any) string {
	s := fmt.Sprint(v)
	if d, ok := v.(time.Duration); ok && d < 0 {
		return "never"
	} else if ok && strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
	}
	return s
}

func typeName(v any) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprintf("%T", v)
}

// showKafka tells of the connection, and no secrets.
func showKafka(o *Options) string {
	k := o.Kafka
	if k == nil {
		return "none"
	}
	sasl := "no login"
	if k.Net.SASL.Enable {
		sasl = "login by " + string(k.Net.SASL.Mechanism)
	}
	return fmt.Sprintf("client %s, TLS %t, %s", k.ClientID, k.Net.TLS.Enable, sasl)
}

func (o OnError) name() string {
	switch o {
	case KeepLast:
		return "keep"
	case Optional:
		return "optional"
	}
	return "" // not set
}

func (a Away) name() string {
	switch a {
	case AwayFail:
		return "fail"
	case AwayWait:
		return "wait"
	case AwayDegraded:
		return "degraded"
	}
	return "" // not set
}

// origin is whose a setting is, by what the code gave for it; an empty struct, as
// an Observer may be, was given all the same.
func origin(given any) string {
	if v := reflect.ValueOf(given); given != nil && (v.Kind() == reflect.Struct || !v.IsZero()) {
		return "code"
	}
	return "default"
}

func (h *handler) config() *pageConfig {
	o := &h.c.opt
	p := &pageConfig{Node: o.Node, Payloads: h.payloads}
	for _, f := range options {
		show := f.show
		if show == nil {
			show = func(o *Options) string { return text(f.get(o)) }
		}
		p.Options = append(p.Options, setting{Name: f.name, Value: show(o), From: origin(f.get(o.given))})
	}
	h.c.mu.Lock()
	controls := h.c.controls // replaced as a whole, never changed
	h.c.mu.Unlock()
	for _, m := range *h.c.modules.Load() {
		var said *rowtide.ModuleControl
		if mc, ok := controls[m.policy.name]; ok {
			said = &mc.ModuleControl
		}
		p.Modules = append(p.Modules, m.settings(said))
	}
	slices.SortFunc(p.Modules, func(a, b moduleSettings) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return p
}

// settings are those in force; said is nil when the daemon has told nothing.
func (m *core) settings(said *rowtide.ModuleControl) moduleSettings {
	rules, given := m.rules(), m.policy.given
	out := moduleSettings{Name: m.policy.name, Version: m.policy.version, Pinned: m.policy.pinned, Loader: m.load != nil}
	for _, f := range followed {
		s := setting{Name: f.name, Value: text(f.get(rules)), From: origin(f.get(given))}
		if said != nil {
			s.compare(f.said(&said.Settings), f.get(rules), f.get(&m.policy), m.policy.pinned)
		}
		out.Settings = append(out.Settings, s)
	}
	for _, f := range own {
		out.Settings = append(out.Settings, setting{Name: f.name, Value: text(f.get(rules)), From: origin(f.get(given))})
	}
	key := setting{Name: "key", Value: "as it is", From: "default"}
	if _, _, err := m.parse(""); errors.Is(err, errOwnSpelling) {
		key.Value, key.From = "a function", "code"
	}
	version := setting{Name: "version", Value: text(m.policy.version), From: origin(given.version)}
	previous := setting{Name: "previous", Value: text(rules.previous), From: origin(given.previous)}
	push := setting{Name: "push", Value: "not told", From: "default"}
	if said != nil {
		push.Value, push.From = text(said.Settings.Push), "daemon"
		if v := said.Version; v == m.policy.version {
			previous.From, previous.Code = "daemon", text(m.policy.previous)
		} else if v != 0 {
			version.Daemon = text(v)
		}
	}
	out.Settings = append(out.Settings, key, version, previous, push)
	return out
}

// compare says what a daemon's word has to do with the value in force. A zero word
// is none, and one that could not be used changed nothing.
func (s *setting) compare(said, inForce, code any, pinned bool) {
	switch {
	case origin(said) == "default":
	case pinned, said != inForce:
		s.Daemon = text(said)
	default:
		s.From, s.Code = "daemon", text(code)
	}
}
