//go:build integration

package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/testenv"
)

// examples/webnode-sidecar runs as its README says, on the modules of
// examples/webnode/rowtide.yaml.
func TestNode_ServesTheSiteInPython(t *testing.T) {
	python := testenv.Python(t, "redis")
	if _, err := config.LoadNode("../../examples/webnode-sidecar/node.yaml"); err != nil {
		t.Error(err)
	}
	s := newSidecar(t, "", moduleLines(t, "../../examples/webnode/rowtide.yaml")...)
	version := rowtide.Version(0)
	write := func(module, id, value string) {
		t.Helper()
		version++
		e := rowtide.Entry{
			Key: rowtide.Key{Module: module, Version: 1, ID: id}, Version: version, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(value),
		}
		s.put(e)
		s.broadcast(s.bus, e)
	}
	const past, future = `"2020-01-01T08:00:00Z"`, `"2999-01-01T08:00:00.5Z"`
	write("event", "1", `{"id":1,"title":"Romeo & Juliet","venue_id":5,"visible_at":`+past+`,"sellable_at":`+past+`}`)
	write("event", "2", `{"id":2,"title":"Soon","venue_id":6,"visible_at":`+past+`,"sellable_at":`+future+`}`)
	write("event", "3", `{"id":3,"title":"Secret","venue_id":5,"visible_at":`+future+`,"sellable_at":`+future+`}`)
	write("venue", "5", `{"id":5,"name":"Globe","city":"London"}`)
	write("stock_view", "1:A:0", `{"avail":100}`)
	write("stock_view", "1:B:0", `{"avail":0}`)
	for _, at := range []string{s.addr, s.socket} {
		_, port, _ := net.SplitHostPort(testenv.FreeAddr(t))
		site := exec.CommandContext(t.Context(), python, "../../examples/webnode-sidecar/site.py", "--port", port, "--node", at)
		site.Stderr = os.Stderr
		if err := site.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = site.Wait() }) // t.Context has ended it by then
		see := func(path string, code int, want string) {
			t.Helper()
			eventually(t, path+" shows "+want, 20*time.Second, func() (bool, string) {
				got, body := get(t, "http://127.0.0.1:"+port+path)
				return got == code && strings.Contains(body, want), body
			})
		}
		see("/events/1", 200, "<h1>Romeo &amp; Juliet</h1>\n<p>Globe, London</p>\n<p>On sale</p>\n<li>A: 100 left</li>\n<li>B: sold out</li>")
		see("/events/2", 200, "<p>On sale from 2999")
		see("/events/3", 404, "no such event")
		see("/events/9", 404, "no such event")
		see("/events/x", 404, "no such page")
		write("stock_view", "1:A:0", `{"avail":99}`)
		see("/events/1", 200, "<li>A: 99 left</li>")
		write("stock_view", "1:A:0", `{"avail":100}`)
	}
}

// moduleLines are the modules of a config file, one by one, in YAML's flow style.
func moduleLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(b), "\nmodules:\n")
	if !ok {
		t.Fatalf("%s has no modules", path)
	}
	var out []string
	for _, m := range strings.Split(list, "  - name: ")[1:] {
		lines := strings.Split(strings.TrimSpace(m), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		out = append(out, "{name: "+strings.Join(lines, ", ")+"}")
	}
	return out
}
