//go:build integration

package main

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// Whatever command a Redis counts as a write is refused as one here.
func TestNode_RefusesEveryWriteCommandOfRedis(t *testing.T) {
	s := newSidecar(t, "")
	c := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1}) // it would try READONLY again
	t.Cleanup(func() { c.Close() })
	for _, p := range testenv.RedisPrograms(t) {
		srv, err := testenv.StartRedis(t.Context(), testenv.Options{Bin: p.Bin})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = srv.Stop(context.Background()) })
		theirs := redis.NewClient(&redis.Options{Addr: srv.Addr})
		t.Cleanup(func() { theirs.Close() })
		commands, err := theirs.Command(t.Context()).Result()
		if err != nil || len(commands) < 200 {
			t.Fatalf("%s: %d commands, %v", p.Name, len(commands), err)
		}
		for name, info := range commands {
			if !slices.Contains(info.Flags, "write") {
				continue
			}
			if err := c.Do(t.Context(), name, "show:1", "x").Err(); err == nil || !strings.HasPrefix(err.Error(), "READONLY ") || !strings.Contains(err.Error(), "the rowtide daemon") {
				t.Errorf("%s's %s: %v", p.Name, name, err)
			}
		}
	}
}

func TestNode_ServesLargeValues(t *testing.T) {
	s := newSidecar(t, "")
	value := strings.Repeat("0123456789abcdef", 4<<20) // 64 MiB
	k := show(1, 7).Key
	e := rowtide.Entry{Key: k, Version: 7, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(value)}
	s.put(e)
	c := redis.NewClient(&redis.Options{Addr: s.addr, ReadTimeout: time.Minute, WriteTimeout: time.Minute})
	t.Cleanup(func() { c.Close() })
	if got, err := c.Get(t.Context(), "show:1").Result(); err != nil || got != value {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if code, body := get(t, "http://"+s.http+"/v1/show/1"); code != 200 || body != value {
		t.Fatalf("over HTTP: %d, %d bytes", code, len(body))
	}
	if err := c.Set(t.Context(), "show:1", value, 0).Err(); !redis.IsReadOnlyError(err) {
		t.Errorf("SET of as much: %v", err)
	}
	if err := c.MGet(t.Context(), "show:1", "show:1").Err(); err == nil || !strings.Contains(err.Error(), "ask for fewer keys") {
		t.Errorf("MGET of twice as much: %v", err)
	}
}

// Malformed requests, and odd ones that are not, get what a real Redis says.
func TestNode_AnswersMalformedRequestsAsRedisDoes(t *testing.T) {
	s := newSidecar(t, "")
	own, err := testenv.StartRedis(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop(context.Background()) })
	for _, raw := range []string{
		"*-1\r\nPING\r\n", "*0\r\n\r\n  \r\nPING\r\n", "*x\r\n", "*\r\n", "*-x\r\n", "*2147483648\r\n", "*9223372036854775807\r\n",
		"*1\r\n$-5\r\n", "*1\r\n$-1\r\n", "*1\r\n$536870913\r\n", "*1\r\n$x\r\n", "*1\r\nPING\r\n", "*1\r\n:4\r\n", "*2\r\n$4\r\nECHO\r\n+a\r\n",
		"GET \"a\r\n", "ECHO \"a\"b\r\n", "ECHO 'a b'\r\n", "ECHO \"\\n\\\"\"\r\n", "ECHO 'a\\'b'\r\n", "ping\n", "  ECHO   a  \r\n",
		"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", "*3\r\n$3\r\nGET\r\n", "PING\r\n*2\r\n$3\r\nGE", "*1\r\n$0\r\n\r\n",
		"*1\r\n$4\r\nping\r\n*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n",
	} {
		var replies [2]string
		for i, addr := range []string{own.Addr, s.addr} {
			c := dialRaw(t, addr)
			if _, err := io.WriteString(c, raw); err != nil {
				t.Fatal(err)
			}
			if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			// A server that closes with bytes unread resets; what it said is there.
			b, _ := io.ReadAll(c.r)
			replies[i] = string(b)
			c.Close()
		}
		if replies[0] != replies[1] {
			t.Errorf("%q: got %q, want %q", raw, replies[1], replies[0])
		}
	}
}
