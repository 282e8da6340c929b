package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowtide/rowtide/internal/sidecar"
)

// nodePatience bounds every wait; a test that needs it has failed. It is below
// nodeDrain.
const nodePatience = 3 * time.Second

// listeningNode is a node without a cache: it listens, and knows no module.
func listeningNode(t *testing.T, cfg sidecar.Config) *node {
	t.Helper()
	cfg.Listen, cfg.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	n := &node{log: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry()}
	n.cfg.Node = cfg.WithDefaults()
	n.server = sidecar.New(n.cfg.Node, nil, sidecar.NewModules("rowtide", n.log), release, n.log)
	if err := n.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.http.close()
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func dialNode(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(nodePatience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestNode_HTTPConnectionsThatAskNothingAreCut(t *testing.T) {
	n := listeningNode(t, sidecar.Config{IdleTimeout: 100 * time.Millisecond})
	for name, request := range map[string]string{
		"after a request": "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
		"within a body":   "POST /v1/event HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[",
	} {
		conn := dialNode(t, n.http.addr())
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
			t.Errorf("%s: %v after %q, want an answer and the end", name, err, answer)
		}
	}
}

// A client that does not take its replies keeps Redis's protocol busy until the drain
// ends; HTTP is closed meanwhile.
func TestNode_ClosesBothProtocolsAtOnce(t *testing.T) {
	n := listeningNode(t, sidecar.Config{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx) }()
	busy := dialNode(t, n.lns[0].Addr().String())
	go func() {
		echo := "ECHO " + strings.Repeat("x", 4000) + "\r\n"
		for { // ends with the connection
			if _, err := io.WriteString(busy, echo); err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for last, same := int64(0), 0; same < 5; <-tick.C { // until its replies are stuck
		now := n.server.Counts().Commands
		if same++; now == 0 || now != last {
			same = 0
		}
		last = now
	}
	stop()
	end := time.Now().Add(nodePatience)
	for {
		conn, err := net.Dial("tcp", n.http.addr())
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(end) {
			t.Fatal("http is open while the other protocol drains")
		}
		<-tick.C
	}
	busy.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(nodePatience):
		t.Error("the node does not end")
	}
}
