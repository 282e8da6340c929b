package sidecar_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/rowtide/rowtide/internal/sidecar"
)

func TestHTTP_KeysOfAnyKindAreReachable(t *testing.T) {
	r := newRig(t)
	h := r.server.Handler(sidecar.Mounts{})
	for path, id := range map[string]string{
		"a/b": "a/b", "a//b": "a//b", "/a": "/a", "a/": "a/", "../a": "../a", "./a": "./a", "%2E%2E": "..", "a%2Fb": "a/b", "a%2F%2Fb": "a//b",
		"%25": "%", "%2525": "%25", "100%25": "100%", "ü": "ü", "%C3%BC": "ü", "%FF": "\xff", "%00": "\x00", "%0D%0A": "\r\n", "a+b": "a+b", "a%3Fb": "a?b",
		"": "", "a:b": "a:b",
	} {
		r.put("event", 1, id, strconv.Quote(id))
		w := ask(t, h, "GET", "/v1/event/"+path, "")
		if w.Code != 200 || w.Body.String() != strconv.Quote(id) {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	for _, path := range []string{"/v1/", "/v1", "/v1//", "/v1//1", "/v1/event%2F1", "/v1/../v1/event/9"} {
		if w := ask(t, h, "GET", path, ""); w.Code != 404 && w.Code/100 != 3 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestHTTP_WrongBatchesAreRefusedWithARemedy(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", `{"id":1}`)
	h := r.server.Handler(sidecar.Mounts{})
	many := strings.Repeat(`"1",`, 9_999) + `"1"`
	for _, tt := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v1/event", ``, 400, "not a JSON list"},
		{"POST", "/v1/event", `[`, 400, "not a JSON list"},
		{"POST", "/v1/event", `["1"`, 400, "not a JSON list"},
		{"POST", "/v1/event", `["1"] x`, 400, "not a JSON list"},
		{"POST", "/v1/event", `"1"`, 400, "not a JSON list"},
		{"POST", "/v1/event", `null`, 400, "0 keys"},
		{"POST", "/v1/event", `[01]`, 400, "not a JSON list"},
		{"POST", "/v1/event", `[true]`, 400, "key 1 is neither"},
		{"POST", "/v1/event", `["1",["1"]]`, 400, "key 2 is neither"},
		{"POST", "/v1/event", strings.Repeat("[", 100_000), 400, "not a JSON list"},
		{"POST", "/v1/event", `["` + "\xff" + `"]`, 400, "not text that JSON can hold"},
		{"POST", "/v1/event", `["\ud800"]`, 400, "not text that JSON can hold"},
		{"GET", "/v1/event?key=%FF", ``, 400, "not text that JSON can hold"},
		{"POST", "/v1/event", `["` + strings.Repeat("k", 9000) + `"]`, 400, "a key of 9000 bytes is too long"},
		{"POST", "/v1/event", `[` + many + `]`, 400, "10000 keys"},
		{"POST", "/v1/nosuch", `["1"]`, 404, "no module"},
		{"POST", "/v1/event/1", `["1"]`, 405, "only reads"},
		{"PATCH", "/v1/event", `["1"]`, 405, "only reads"},
		{"POST", "/v1/event", `["1", "1" ,"1"]`, 200, `{"values":{"1":{"id":1}}}`},
		{"GET", "/v1/event?key=1&key=1", ``, 200, `{"values":{"1":{"id":1}}}`},
		{"POST", "/v1/event", `[1,"1"]`, 200, `{"values":{"1":{"id":1}}}`},
		{"POST", "/v1/event", `["ü","a\u0000b"]`, 200, `{"values":{"a\u0000b":null,"ü":null}}`},
		{"POST", "/v1/event", `[-0,1e2]`, 200, `{"values":{"-0":null,"1e2":null}}`}, // as they are spelt
	} {
		w := ask(t, h, tt.method, tt.path, tt.body)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) || w.Code >= 400 && !strings.Contains(w.Body.String(), `"remedy":"`) {
			t.Errorf("%s %s %.40q: %d %s; want %d %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.code, tt.want)
		}
	}
}

func TestHTTP_BatchOfTenThousandKeys(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.MaxKeys = 10_000 })
	var body strings.Builder
	for i := range 10_000 {
		if i%100 == 0 {
			r.put("event", 1, fmt.Sprint(i), fmt.Sprint(i))
		}
		fmt.Fprintf(&body, ",%d", i)
	}
	w := ask(t, r.server.Handler(sidecar.Mounts{}), "POST", "/v1/event", "["+body.String()[1:]+"]")
	if got := w.Body.String(); w.Code != 200 || strings.Count(got, ":null") != 9_900 || !strings.Contains(got, `"9900":9900`) {
		t.Errorf("%d %.200s", w.Code, got)
	}
}

func TestHTTP_SlowReaderIsCut(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.WriteTimeout = 50 * time.Millisecond })
	r.put("event", 1, "1", strings.Repeat("1", 32<<20))
	srv := httptest.NewUnstartedServer(r.server.Handler(sidecar.Mounts{}))
	closed := make(chan struct{}, 2)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.Start()
	defer srv.Close()
	c := dial(t, "tcp", srv.Listener.Addr().String())
	c.send("GET /v1/event/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("who does not read keeps the connection")
	}
	// A connection that only rested is served, however long after.
	c = dial(t, "tcp", srv.Listener.Addr().String())
	end := time.Now().Add(patience)
	for served := 0; served < 2; {
		c.send("GET /v1/event/2 HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case err == nil && res.StatusCode == 404:
			served++
		case err == nil && res.StatusCode == 503 && time.Now().Before(end):
			// The large value was slow, and Redis is left alone for a moment.
		default:
			t.Fatal(res, err)
		}
		res.Body.Close()
		<-time.After(100 * time.Millisecond)
	}
}

// The reader's time begins when there is something to read.
func TestHTTP_SlowRedisIsNotTheReadersFault(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.WriteTimeout = 50 * time.Millisecond })
	r.put("event", 1, "1", "1")
	r.put("event", 1, "2", "2")
	r.mr.Server().SetPreHook(func(_ *server.Peer, cmd string, _ ...string) bool {
		if cmd == "MGET" {
			<-time.After(200 * time.Millisecond)
		}
		return false
	})
	srv := httptest.NewServer(r.server.Handler(sidecar.Mounts{}))
	defer srv.Close()
	for _, path := range []string{"/v1/event/1", "/v1/event?key=2"} {
		res, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != 200 {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}
