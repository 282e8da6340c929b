package sidecar_test

import (
	"net"
	"testing"
)

// FuzzConnection sends bytes as they are. Whatever they are, the server answers
// the next connection.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		encode("GET", "event:1") + encode("MGET", "event:1", "event:2"),
		encode("HELLO", "3", "AUTH", "default", "x", "SETNAME", "n") + encode("INFO"),
		encode("CLIENT", "LIST") + encode("COMMAND", "DOCS") + encode("COMMAND", "INFO", "get", "nosuch"),
		encode("TTL", "rowtide:event:1:1") + encode("PTTL", "rowtide:event:x:1") + encode("RESET") + encode("QUIT"),
		"*1\r\n$9223372036854775807\r\n", "*3\r\n$3\r\nGET\r\n", "GET 'event:1'\r\n", "$5 GET a\r\n", "\x00\xff\n", "*-1\r\n",
		"SELECT 99999999999999999999\r\n", "ECHO \"\\x\\\"\"\r\n", "EXISTS\r\nCLIENT\r\nAUTH a b c d\r\n",
	} {
		f.Add([]byte(seed))
	}
	r := newRig(f)
	r.put("event", 1, "1", "v")
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := dial(t, "unix", r.socket)
		// The other side may have ended it already.
		_, _ = c.Write(raw)
		_ = c.Conn.(*net.UnixConn).CloseWrite()
		c.ended()
		c.Close()
		next := dial(t, "unix", r.socket)
		if got := next.do("PING"); got != "+PONG\r\n" {
			t.Fatalf("the next connection: %q", got)
		}
		next.Close()
	})
}
