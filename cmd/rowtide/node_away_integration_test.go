//go:build integration

package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// What a sidecar does while Kafka is away at its start is its operator's choice: to end
// is TestNode_BadInputNamesTheThingAndTheRemedy, the other two are here.
func TestNode_WaitsForKafkaOrServesWhatThereIs(t *testing.T) {
	s := newSidecar(t, "")
	s.put(show(1, 5))
	for _, away := range []string{"wait", "degraded"} {
		t.Run(away, func(t *testing.T) {
			broker, addr, web := testenv.FreeAddr(t), testenv.FreeAddr(t), testenv.FreeAddr(t)
			p := startProcess(t, []string{
				"ROWTIDE_NODE_AWAY=" + away, "ROWTIDE_KAFKA_BROKERS=" + broker,
				"ROWTIDE_NODE_LISTEN=" + addr, "ROWTIDE_NODE_HTTP=" + web, "ROWTIDE_NODE_SOCKET=" + s.socket + away,
			}, "node", "-c", s.path)
			eventually(t, "it says what it waits for", 30*time.Second, func() (bool, string) {
				text := p.Log.String()
				return strings.Contains(text, "trying again until it can be reached") && strings.Contains(text, broker), text
			})
			if away == "wait" {
				if conn, err := net.Dial("tcp", addr); err == nil {
					conn.Close()
					t.Error("it serves before it may")
				}
			} else {
				eventually(t, "it serves what redis has", 30*time.Second, func() (bool, string) {
					resp, err := http.Get("http://" + web + "/v1/show/1")
					if err != nil {
						return false, err.Error() + p.Log.String()
					}
					resp.Body.Close()
					return resp.StatusCode == http.StatusOK && resp.Header.Get("Rowtide-Degraded") == "true", resp.Status
				})
			}
			forward(t, broker, testenv.Kafka(t)[0])
			eventually(t, "it is ready", 60*time.Second, func() (bool, string) {
				resp, err := http.Get("http://" + web + "/readyz")
				if err != nil {
					return false, err.Error() + p.Log.String()
				}
				resp.Body.Close()
				return resp.StatusCode == http.StatusOK, resp.Status + p.Log.String()
			})
			if code := p.Terminate(t); code != exitClean {
				t.Errorf("exit code %d: %s", code, p.Log)
			}
		})
	}
	p := startProcess(t, []string{"ROWTIDE_NODE_AWAY=wait", "ROWTIDE_REDIS_ADDRS=" + testenv.FreeAddr(t)}, "node", "-c", s.path)
	eventually(t, "it waits", 30*time.Second, func() (bool, string) {
		return strings.Contains(p.Log.String(), "trying again"), p.Log.String()
	})
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d when it was stopped while it waited: %s", code, p.Log)
	}
}

// forward has addr lead to a broker; it gives its own address to those who ask there.
func forward(t *testing.T, addr, broker string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", broker)
			if err != nil {
				in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
}
