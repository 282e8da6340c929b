package localsync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// call asks the handler and decodes its JSON into doc, unless that is nil.
func call(t *testing.T, h http.Handler, method, target string, doc any) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	if doc != nil {
		if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Fatalf("%s %s is %q: %s", method, target, ct, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), doc); err != nil {
			t.Fatalf("%s %s: %v: %s", method, target, err, w.Body)
		}
	}
	return w
}

// told is the JSON of peek and inspect.
type told struct {
	Key, RedisKey        string
	Floor                string
	Served               bool
	Local, Redis, Loader toldCopy
	Verdicts             []string
	Error, Remedy        string
}

type toldCopy struct {
	State, Note string
	Version     string `json:"value_version"`
	Flags       []string
	Size        int
	Payload     *struct{ Form, Text string }
}

func (d *told) says(t *testing.T, words string) {
	t.Helper()
	if !strings.Contains(strings.Join(d.Verdicts, "\n"), words) {
		t.Errorf("verdicts %q, want %q", d.Verdicts, words)
	}
}

func TestHandler_WorksUnderAnyPath(t *testing.T) {
	n := newNode(t)
	h := n.cache.Handler()
	stripped, whole := http.NewServeMux(), http.NewServeMux()
	stripped.Handle("/debug/ls/", http.StripPrefix("/debug/ls/", h))
	stripped.Handle("/bare", http.StripPrefix("/bare", h))
	whole.Handle("/localsync/", h)
	for _, c := range []struct {
		mux  http.Handler
		root string
	}{{stripped, "/debug/ls/"}, {whole, "/localsync/"}, {h, "/"}} {
		w := httptest.NewRecorder()
		c.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.root, nil))
		links := regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1)
		if w.Code != http.StatusOK || len(links) < 5 {
			t.Fatalf("%s: status %d with %d links", c.root, w.Code, len(links))
		}
		for _, l := range links {
			if res := call(t, c.mux, http.MethodGet, c.root+l[1], nil); res.Code != http.StatusOK {
				t.Errorf("%s links to %s: status %d", c.root, l[1], res.Code)
			}
		}
	}
	res := call(t, stripped, http.MethodGet, "/bare", nil)
	if res.Code != http.StatusTemporaryRedirect || res.Header().Get("Location") != "./bare/" {
		t.Errorf("a path without its slash: status %d to %q", res.Code, res.Header().Get("Location"))
	}
}

func TestHandler_PageNeedsNothingFromElsewhereAndNoInlineCode(t *testing.T) {
	n := newNode(t)
	h := n.cache.Handler()
	for _, name := range []string{"", "app.js", "chart.js", "inspect.js", "app.css"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x/"+name, nil))
		text := strings.ReplaceAll(w.Body.String(), "http://www.w3.org/2000/svg", "") // a name, not an address
		for _, bad := range []string{"://", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick=", "<script>", "<style>", "javascript:"} {
			if strings.Contains(text, bad) {
				t.Errorf("page file %q has %s", name, bad)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		if w.Code != http.StatusOK || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("page file %q: status %d under the policy %q", name, w.Code, policy)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("page file %q may be taken for another type", name)
		}
	}
}

func TestHandler_ErrorsAreJSONWithARemedy(t *testing.T) {
	n := newNode(t)
	n.events(newOrigin())
	h := n.cache.Handler()
	for _, c := range []struct {
		method, target string
		code           int
		words          string
	}{
		{"GET", "/nothing", 404, "there is no nothing"},
		{"GET", "/peek", 404, "is not declared"},
		{"GET", "/peek?module=%3Cimg%3E&key=1", 404, "module <img> is not declared"},
		{"GET", "/inspect?module=event&version=9&key=1", 404, "event 9 is not declared"},
		{"GET", "/inspect?module=event", 400, "no key is given"},
		{"GET", "/inspect?module=event&key=abc", 400, "of type int64"},
		{"POST", "/stats", 405, "POST is not for stats"},
		{"DELETE", "/inspect?module=event&key=1", 405, "DELETE is not for inspect"},
	} {
		var d told
		res := call(t, h, c.method, c.target, &d)
		if res.Code != c.code || !strings.Contains(d.Error, c.words) || d.Remedy == "" {
			t.Errorf("%s %s: %d %q, remedy %q; want %d %q", c.method, c.target, res.Code, d.Error, d.Remedy, c.code, c.words)
		}
	}
}

func TestHandler_PeekDisturbsNothing(t *testing.T) {
	n := newNode(t)
	o := newOrigin()
	m := n.events(o)
	n.commit(1, 10, "one")
	want(t, m, 1, "one")
	n.pass(2 * time.Minute) // past its refresh
	before, mgets := n.module("event"), n.commands("MGET")

	var d told
	call(t, n.cache.Handler(), http.MethodGet, "/peek?module=event&key=1", &d)
	if !d.Served || d.Local.State != "value" || d.Local.Version != "10" || d.Floor != "10" || d.Local.Size != 3 {
		t.Errorf("peek tells %+v", d)
	}
	if d.Local.Payload != nil {
		t.Error("a payload is shown without WithPayloads")
	}
	call(t, n.cache.Handler(), http.MethodGet, "/peek?module=event&key=2", &d)
	if after := n.module("event"); after != before {
		t.Errorf("peek changed the statistics from %+v to %+v", before, after)
	}
	if n.commands("MGET") != mgets || n.commands("GET") != 0 || o.loads() != 0 {
		t.Error("peek asked Redis or the loader")
	}
}

func TestHandler_InspectComparesNodeRedisAndLoader(t *testing.T) {
	n := newNode(t)
	o := newOrigin()
	o.set(1, `{"b": 2, "a": 1}`)
	m := n.events(o)
	h := n.cache.Handler(localsync.WithPayloads())
	inspect := func(method string, id int64) *told {
		t.Helper()
		d := new(told)
		if res := call(t, h, method, fmt.Sprintf("/inspect?module=event&key=%d", id), d); res.Code != http.StatusOK {
			t.Fatalf("inspect %d: %d %s", id, res.Code, d.Error)
		}
		return d
	}

	inspect("GET", 5).says(t, "Neither this node nor Redis has it")

	n.commit(1, 10, `{"a":1,"b":2}`)
	want(t, m, 1, `{"a":1,"b":2}`)
	d := inspect("GET", 1)
	d.says(t, "This node and Redis are equal")
	if d.Loader.State != "not_asked" || o.loads() != 0 {
		t.Errorf("a GET asked the loader: %+v", d.Loader)
	}
	if d.Local.Payload == nil || d.Local.Payload.Form != "json" || d.Local.Payload.Text != `{"a":1,"b":2}` {
		t.Errorf("payload %+v", d.Local.Payload)
	}
	d = inspect("POST", 1)
	d.says(t, "Redis and the loader have the same JSON")
	if o.loads() != 1 || n.module("event").Loads != 1 {
		t.Errorf("%d loads, %d counted; want 1", o.loads(), n.module("event").Loads)
	}

	n.put(1, 11, `{"a":1,"b":3}`) // before its invalidation
	inspect("GET", 1).says(t, "OLDER than Redis and still served")
	n.invalidate(1, 11)
	inspect("GET", 1).says(t, "OLDER than Redis, and known to be")
	inspect("POST", 1).says(t, "Redis and the loader DIFFER")
	n.evict(1)
	inspect("GET", 1).says(t, "Only this node has it")

	o.fail(errors.New("database is away"))
	if d = inspect("POST", 1); d.Loader.State != "error" || !strings.Contains(d.Loader.Note, "database is away") {
		t.Errorf("loader %+v", d.Loader)
	}
	n.mr.SetError("LOADING for a while")
	if d = inspect("GET", 1); d.Redis.State != "error" || !strings.Contains(d.Redis.Note, "LOADING") {
		t.Errorf("redis %+v", d.Redis)
	}
	d.says(t, "cannot be compared")
}

func TestHandler_InspectorsRedisErrorDoesNotKeepReadsOffRedis(t *testing.T) {
	n := newNode(t)
	m := n.events(newOrigin())
	n.put(1, 10, "one")
	n.mr.SetError("LOADING for a while")
	call(t, n.cache.Handler(), http.MethodGet, "/inspect?module=event&key=1", new(told))
	n.mr.SetError("")
	if info := want(t, m, 1, "one"); info.Level != localsync.LevelRedis {
		t.Errorf("read from %v, want Redis", info.Level)
	}
}

func TestHandler_LoaderIsAskedByThePageOnlyAndOneAtATime(t *testing.T) {
	n := newNode(t)
	o := newOrigin()
	entered, release := make(chan struct{}), make(chan struct{})
	o.gate = func(context.Context, []int64) {
		close(entered)
		<-release
	}
	n.events(o)
	h := n.cache.Handler()
	const target = "/inspect?module=event&key=1"

	foreign := httptest.NewRequest(http.MethodPost, target, nil)
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, foreign)
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"remedy"`) || o.loads() != 0 {
		t.Fatalf("a foreign page's POST: %d %s, %d loads", w.Code, w.Body, o.loads())
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, target, nil))
	}()
	await(t, "the loader", entered)
	var d told
	if res := call(t, h, http.MethodPost, target, &d); res.Code != http.StatusTooManyRequests {
		t.Errorf("a second POST meanwhile: %d", res.Code)
	}
	close(release)
	await(t, "the first answer", done)
}

func TestHandler_InspectTakesOwnSpellings(t *testing.T) {
	type seat struct{ Row, Number int }
	n := newNode(t)
	cfg := localsync.ModuleConfig[seat]{Name: "seat", Key: func(s seat) string { return fmt.Sprintf("%d-%d", s.Row, s.Number) }}
	loader := func(context.Context, []seat) (map[seat]string, error) { return nil, nil }
	if _, err := localsync.NewModule(n.cache, cfg, localsync.Codec[string](text{}), loader); err != nil {
		t.Fatal(err)
	}
	k := rowtide.Key{Module: "seat", Version: 1, ID: "3-14"}
	e := rowtide.Entry{Key: k, Version: 5, Payload: []byte("free")}
	if err := n.mr.Set(k.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	var d told
	call(t, n.cache.Handler(), http.MethodPost, "/inspect?module=seat&key=3-14", &d)
	if d.Redis.State != "value" || d.Redis.Version != "5" || d.Loader.State != "not_asked" || d.Loader.Note == "" {
		t.Errorf("redis %+v, loader %+v", d.Redis, d.Loader)
	}
}

func TestHandler_PayloadsOfAnyKindAreShownAsText(t *testing.T) {
	n := newNode(t)
	m := n.events(newOrigin())
	const hostile = `<script>alert(1)</script>`
	for id, c := range map[int64]struct{ value, form, text string }{
		1: {hostile, "text", hostile},
		2: {`"` + hostile + `"`, "json", `"` + hostile + `"`},
		3: {"\xff\xfe\x00", "base64", "//4A"},
		4: {strings.Repeat("ä", 40_000), "text", strings.Repeat("ä", 32_767)},
	} {
		n.put(id, 10, c.value)
		want(t, m, id, c.value)
		w := httptest.NewRecorder()
		n.cache.Handler(localsync.WithPayloads()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("/peek?module=event&key=%d", id), nil))
		if strings.Contains(w.Body.String(), "<") {
			t.Errorf("payload %d stands as markup in %s", id, w.Body)
		}
		var d told
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		if p := d.Local.Payload; p == nil || p.Form != c.form || p.Text != c.text {
			t.Errorf("payload %d is shown as %+v", id, p)
		}
	}
}

func TestHandler_StatsTellBusStoreAndTopKeys(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.Node = "web-1" })
	m := n.events(newOrigin())
	n.commit(1, 10, "one")
	for range 1000 {
		want(t, m, 1, "one")
	}
	n.beat()
	n.bus.lose(2)
	n.beat()
	n.silence(localsync.DefaultSilence + time.Second)
	n.bus.batch(1, n.clock.Now(), 0)

	var d struct {
		Node            string
		Ready, Degraded bool
		Modules         []struct {
			Name                 string
			Local, Redis, Loader int
		}
		Bus struct {
			Silent      int
			ByPartition []struct {
				Silent bool
				Gaps   int
			} `json:"by_partition"`
		}
		Store struct {
			Entries  int
			MaxBytes int `json:"max_bytes"`
		}
		Top map[string][]struct{ Key string }
	}
	call(t, n.cache.Handler(), http.MethodGet, "/stats", &d)
	if d.Node != "web-1" || !d.Ready || !d.Degraded || d.Store.Entries != 1 || d.Store.MaxBytes != 64<<20 {
		t.Errorf("stats tell %+v", d)
	}
	if len(d.Modules) != 1 || d.Modules[0].Local != 999 || d.Modules[0].Redis != 1 {
		t.Errorf("modules %+v", d.Modules)
	}
	p := d.Bus.ByPartition
	if d.Bus.Silent != 3 || len(p) != 4 || p[1].Silent || !p[2].Silent || p[2].Gaps != 1 || p[3].Gaps != 0 {
		t.Errorf("bus %+v", d.Bus)
	}
	if top := d.Top["event"]; len(top) != 1 || top[0].Key != "1" {
		t.Errorf("top keys %+v", d.Top)
	}
}

func TestHandler_AfterCloseSaysSo(t *testing.T) {
	n := newNode(t)
	n.events(newOrigin())
	if err := n.cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var d told
	if res := call(t, n.cache.Handler(), http.MethodGet, "/inspect?module=event&key=1", &d); res.Code != http.StatusServiceUnavailable || d.Error == "" {
		t.Errorf("inspect after Close: %d %q", res.Code, d.Error)
	}
	if res := call(t, n.cache.Handler(), http.MethodGet, "/stats", &struct{}{}); res.Code != http.StatusOK {
		t.Errorf("stats after Close: %d", res.Code)
	}
}
