package sidecar_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/internal/sidecar"
)

// ask sends a request straight to the handler.
func ask(t *testing.T, h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestHTTP_ServesValues(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.MaxKeys = 3; c.MaxRequest = 16 << 10 })
	r.put("event", 1, "1", `{"id":1}`)
	r.put("event", 1, "a/b c", `{"id":2}`)
	r.put("event", 1, "odd", `no json`)
	r.put("event", 1, "gone", "")
	r.put("page", 2, "1", "<p>")
	h := r.server.Handler(sidecar.Mounts{})
	for _, tt := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/v1/event/1", "", 200, `{"id":1}`},
		{"GET", "/v1/event/a%2Fb%20c", "", 200, `{"id":2}`},
		{"GET", "/v1/event/a/b%20c", "", 200, `{"id":2}`},
		{"HEAD", "/v1/event/1", "", 200, ``},
		{"GET", "/v1/page/1", "", 200, `<p>`},
		{"GET", "/v1/event/gone", "", 404, `"error":"module event has no value under \"gone\"","remedy":`},
		{"GET", "/v1/event/9", "", 404, `"remedy":`},
		{"GET", "/v1/evnt/9", "", 404, `want module:id with one of event, page`},
		{"GET", "/v1/event/" + strings.Repeat("k", 9000), "", 414, `too long`},
		{"GET", "/v1/event?key=1&key=9", "", 200, `{"values":{"1":{"id":1},"9":null}}`},
		{"POST", "/v1/event", `["1",9]`, 200, `{"values":{"1":{"id":1},"9":null}}`},
		{"POST", "/v1/event", `["1","odd"]`, 200, `{"values":{"1":{"id":1}},"errors":{"odd":"the value is not JSON; read it by GET /v1/{module}/{key}"}}`},
		{"POST", "/v1/page", `[1]`, 200, `{"values":{"1":"PHA+"}}`},
		{"POST", "/v1/event", `[1,2,3,4]`, 400, `"error":"4 keys"`},
		{"POST", "/v1/event", `[]`, 400, `"error":"0 keys"`},
		{"GET", "/v1/event", ``, 400, `"error":"0 keys"`},
		{"POST", "/v1/event", `{"a":1}`, 400, `not a JSON list`},
		{"POST", "/v1/event", `[{}]`, 400, `key 1 is neither a string nor a number`},
		{"POST", "/v1/event", `[null]`, 400, `key 1 is neither`},
		{"POST", "/v1/event", `["` + strings.Repeat("x", 17<<10) + `"]`, 413, `node.max_request`},
		{"PUT", "/v1/event/1", `x`, 405, `rowtide node only reads`},
		{"DELETE", "/v1/event/1", ``, 405, `the rowtide daemon writes the cache`},
		{"GET", "/nosuch", "", 404, `"remedy":`},
		{"GET", "/healthz", "", 200, `ok`},
		{"GET", "/readyz", "", 200, `{"degraded":false,"modules":["event","page"],"status":"ready"}`},
	} {
		w := ask(t, h, tt.method, tt.path, tt.body)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %.60s %.40s: %d %s; want %d with %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.code, tt.want)
		}
		if ct := w.Header().Get("Content-Type"); w.Code >= 400 && (ct != "application/json" || !json.Valid(w.Body.Bytes())) {
			t.Errorf("%s %.60s: an error in %s", tt.method, tt.path, ct)
		}
	}
}

func TestHTTP_HeadersTellWhatAValueIsWorth(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", `{"id":1}`)
	r.put("page", 2, "1", `<p>`)
	h := r.server.Handler(sidecar.Mounts{})
	for i, level := range []string{"redis", "local"} {
		w := ask(t, h, "GET", "/v1/event/1", "")
		if got := w.Header(); got.Get("Rowtide-Level") != level || got.Get("Rowtide-Version") == "" || got.Get("Age") != "0" ||
			got.Get("Content-Type") != "application/json" || got.Get("Rowtide-Stale") != "" {
			t.Errorf("read %d: %v", i, got)
		}
	}
	if ct := ask(t, h, "GET", "/v1/page/1", "").Header().Get("Content-Type"); ct != "application/octet-stream" {
		t.Errorf("raw values are %s", ct)
	}
	tag := ask(t, h, "GET", "/v1/event/1", "").Header().Get("ETag")
	for header, code := range map[string]int{tag: 304, `"x", W/` + tag: 304, "*": 304, `"x"`: 200, "": 200} {
		if w := ask(t, h, "GET", "/v1/event/1", "", "If-None-Match", header); w.Code != code || code == 304 && w.Body.Len() > 0 {
			t.Errorf("If-None-Match %s: %d %s", header, w.Code, w.Body)
		}
	}
	r.mr.Close()
	w := ask(t, h, "GET", "/v1/event/7", "")
	if w.Code != 503 || !strings.Contains(w.Body.String(), "remedy") {
		t.Errorf("with Redis away: %d %s", w.Code, w.Body)
	}
	w = ask(t, h, "POST", "/v1/event", `[1,7]`)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `{"values":{"1":{"id":1}},"errors":{"7":`) {
		t.Errorf("a batch with Redis away: %d %s", w.Code, w.Body)
	}
	if w := ask(t, h, "POST", "/v1/event", `[7]`); w.Code != 503 {
		t.Errorf("a batch of which nothing can be read: %d %s", w.Code, w.Body)
	}
}

func TestHTTP_WantsThePasswordButForHealth(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.Password = "secret" })
	r.put("event", 1, "1", `{}`)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") })
	h := r.server.Handler(sidecar.Mounts{Metrics: page, Debug: page})
	for _, path := range []string{"/v1/event/1", "/v1/event?key=1", "/metrics", "/localsync/"} {
		for auth, code := range map[string]int{
			"": 401, "Bearer no": 401, "secret": 401, "Bearer secret": 200,
			basic("any", "no"): 401, basic("secret", ""): 401, basic("any", "secret"): 200, basic("", "secret"): 200,
		} {
			if w := ask(t, h, "GET", path, "", "Authorization", auth); w.Code != code {
				t.Errorf("%s with %q: %d, want %d", path, auth, w.Code, code)
			} else if how := w.Header().Get("WWW-Authenticate"); code == 401 && !strings.HasPrefix(how, "Basic ") {
				t.Errorf("%s asks for %q; a browser sends Basic only", path, how)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if w := ask(t, h, "GET", path, ""); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestConfig_RefusesWhatOthersCouldReach(t *testing.T) {
	for _, tt := range []struct {
		cfg  sidecar.Config
		want string // "" is no fault
	}{
		{sidecar.Config{}, ""},
		{sidecar.Config{Listen: "[::1]:1", HTTP: "localhost:2"}, ""},
		{sidecar.Config{Listen: "0.0.0.0:6390"}, `node.listen "0.0.0.0:6390" is not loopback`},
		{sidecar.Config{HTTP: ":80"}, `node.http ":80" is not loopback`},
		{sidecar.Config{HTTP: "web.example:80", Password: "x"}, `set node.expose`},
		{sidecar.Config{HTTP: "0.0.0.0:80", Expose: true}, `there is no password`},
		{sidecar.Config{HTTP: "0.0.0.0:80", Expose: true, Password: "x"}, ""},
		{sidecar.Config{Listen: "off", HTTP: "off"}, `serve at least one`},
		{sidecar.Config{Listen: "off", HTTP: "off", Socket: "/run/s"}, ""},
		{sidecar.Config{Listen: "6390"}, `want host:port, or off`},
		{sidecar.Config{SocketMode: "0999"}, `node.socket_mode "0999"`},
		{sidecar.Config{SocketMode: "07777"}, `node.socket_mode`},
		{sidecar.Config{MaxKeys: -1}, `node.max_keys -1`},
		{sidecar.Config{MaxRequest: 1}, `node.max_request 1`},
		{sidecar.Config{IdleTimeout: 1}, `node.idle_timeout`},
		{sidecar.Config{WriteTimeout: -1}, `node.write_timeout`},
	} {
		err := tt.cfg.WithDefaults().Validate()
		if got := fmt.Sprint(err); (err == nil) != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}
