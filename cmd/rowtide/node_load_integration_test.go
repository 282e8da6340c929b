//go:build integration

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

func TestNode_HoldsTenThousandConnections(t *testing.T) {
	const n = 10_000
	s := newSidecar(t, fmt.Sprintf(", max_connections: %d", n))
	for id := range 100 {
		s.put(show(id, 7))
	}
	for id := range 100 { // a storm on cold keys is another test's
		s.cli("GET", fmt.Sprint("show:", id))
	}
	before := rss(t, s.p)
	conns := make([]*raw, n)
	var wg sync.WaitGroup
	for w := range 10 {
		wg.Go(func() {
			for i := w; i < n; i += 10 {
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = &raw{t, conn, bufio.NewReaderSize(conn, 64)}
				_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	for round := range 2 { // all of them are there at once
		for w := range 10 {
			wg.Go(func() {
				for i := w; i < n; i += 10 {
					fmt.Fprintf(conns[i], "GET show:%d\r\n", i%100)
				}
				for i := w; i < n; i += 10 {
					head, _ := conns[i].r.ReadString('\n')
					body, err := conns[i].r.ReadString('\n')
					if head+body != "$2\r\nv7\r\n" {
						t.Errorf("round %d, connection %d: %q %v", round, i, head+body, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	if got := s.metric("rowtide_node_connections"); got != n {
		t.Errorf("%v connections counted", got)
	}
	each := (rss(t, s.p) - before) / n
	t.Logf("%d connections, %d bytes each", n, each)
	if each > 40<<10 {
		t.Errorf("a connection costs %d bytes", each)
	}
	// One more is told so, and those that are there do not notice.
	if got := strings.TrimSpace(string(must(t, dialRaw(t, s.addr).r))); got != "-ERR max number of clients reached" {
		t.Errorf("one more: %q", got)
	}
}

func must(t *testing.T, r *bufio.Reader) []byte {
	t.Helper()
	line, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// rss is the program's resident memory in bytes.
func rss(t *testing.T, p *testenv.Program) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// metric reads a metric without labels.
func (s *sidecarRig) metric(name string) float64 {
	s.t.Helper()
	_, body := get(s.t, "http://"+s.http+"/metrics")
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(body)
	if m == nil {
		s.t.Fatalf("no metric %s in\n%s", name, body)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// redis-benchmark runs against the sidecar, single and in pipelines, without an
// error; its rates are in the log.
func TestNode_StandsRedisBenchmark(t *testing.T) {
	s := newSidecar(t, "")
	s.put(rowtide.Entry{Key: show(1, 7).Key, Version: 7, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(strings.Repeat("x", 200))})
	key := show(1, 7).Key.Redis(s.cfg.Prefix) // the same key on both
	host, port, _ := net.SplitHostPort(s.addr)
	redisHost, redisPort, _ := net.SplitHostPort(testenv.Redis(t))
	mget := append([]string{"MGET"}, strings.Fields(strings.Repeat(key+" ", 10))...)
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"GET", []string{"-n", "50000", "GET", key}},
		{"GET -P 16", []string{"-n", "200000", "-P", "16", "GET", key}},
		{"MGET of 10 -P 16", append([]string{"-n", "50000", "-P", "16"}, mget...)},
	} {
		run := func(host, port string) string {
			return shell(t, "", "redis-benchmark", append([]string{"-h", host, "-p", port, "-q", "--precision", "1"}, tt.args...)...)
		}
		ours, theirs := perSecond(t, run(host, port)), perSecond(t, run(redisHost, redisPort))
		t.Logf("%s: sidecar %.0f/s, Redis %.0f/s, ratio %.2f", tt.name, ours, theirs, ours/theirs)
	}
	if got := s.metric("rowtide_node_failed_commands_total"); got > 6 {
		t.Errorf("%v commands failed; only its CONFIG GETs may", got)
	}
}

func perSecond(t *testing.T, out string) float64 {
	t.Helper()
	all := regexp.MustCompile(`: ([\d.]+) requests per second`).FindAllStringSubmatch(out, -1)
	if all == nil || strings.Contains(out, "Error from server") {
		t.Fatalf("redis-benchmark: %s", out)
	}
	v, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
