package sidecar_test

import (
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// counted counts the writes of the connections that it accepts.
type counted struct {
	net.Listener
	writes *atomic.Int64
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return countedConn{conn, l.writes}, err
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// What arrives at once is answered at once: a Unix socket gives the whole of one
// write to one read.
func TestPipeline_IsSentInOneWrite(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", strings.Repeat("v", 200))
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	go func() { _ = r.server.Serve(counted{ln, &writes}) }() // until the rig's Close
	c := dial(t, "unix", path)
	c.do("GET", "event:1") // it is local from here on
	for _, n := range []int{1, 16, 100, 250, 300} {
		before := writes.Load()
		c.send(strings.Repeat(encode("GET", "event:1"), n))
		for range n {
			if got := c.reply(); len(got) != 208 {
				t.Fatalf("%q", got)
			}
		}
		// 250 are more than the first buffer takes; 300 fit the larger one, that is
		// there from then on.
		want := int64(1)
		if n == 250 {
			want = 2
		}
		if got := writes.Load() - before; got != want {
			t.Errorf("%d commands were answered in %d writes, want %d", n, got, want)
		}
	}
}

// A reply does not wait for the rest of the command behind its own.
func TestPipeline_HalfACommandHoldsNothingBack(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", "v")
	for _, half := range []string{"*", "*2\r\n", "*2\r\n$3\r\nGE", "*2\r\n$3\r\nGET\r\n$7\r\nevent:1", "GET ev"} {
		for _, addr := range [][2]string{{"tcp", r.addr}, {"unix", r.socket}} {
			c := dial(t, addr[0], addr[1])
			c.send(encode("GET", "event:1") + half)
			if got := c.reply(); got != "$1\r\nv\r\n" {
				t.Fatalf("before %q: %q", half, got)
			}
			if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := c.ended(); got != "" {
				t.Errorf("%q and then the end was answered with %q", half, got)
			}
		}
	}
}
