package sidecar_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/internal/sidecar"
)

func TestInline_IsSplitAsRedisDoes(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", "v")
	r.put("event", 1, "a b", "blank")
	c := r.dial()
	for raw, want := range map[string]string{
		"GET event:1\r\n":              "$1\r\nv\r\n",
		"get event:1\n":                "$1\r\nv\r\n",
		"  GET   event:1  \r\n":        "$1\r\nv\r\n",
		"GET \"event:a b\"\r\n":        "$5\r\nblank\r\n",
		"GET 'event:a b'\r\n":          "$5\r\nblank\r\n",
		"ECHO \"\\r\\n\"\r\n":          "$2\r\n\r\n\r\n",
		"*-1\r\n*0\r\nGET event:1\r\n": "$1\r\nv\r\n", // no commands, as Redis takes them
		"SET event:1 x\r\n":            "-READONLY SET is refused: rowtide node only reads. Write to the database; the rowtide daemon is the one that writes the cache\r\n",
		"\x00\x01\r\n":                 "-ERR unknown command '\x00\x01', with args beginning with: \r\n",
	} {
		c.send(raw)
		if got := c.reply(); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
	c.send("GET \"event:\\x31\"\r\n") // event:1 to Redis; never another key, or "no such row"
	if got := c.ended(); !strings.HasPrefix(got, "-ERR Protocol error: \\x in an inline command") {
		t.Errorf("%q", got)
	}
}

// Nothing that a client sends can end an error's line early.
func TestErrors_AreOneLine(t *testing.T) {
	r := newRig(t)
	const forged = "x\r\n+OK\r\n$-1\r\n"
	for _, proto := range []string{"2", "3"} {
		c := r.dial()
		c.do("HELLO", proto)
		for _, args := range [][]string{
			{forged},
			{"x", forged},
			{"GET", forged},
			{"GET", forged + ":1"},
			{"GET", "rowtide:" + forged + ":1:1"},
			{"MGET", "event:1", forged},
			{"CLIENT", forged},
			{"CLIENT", "SETINFO", forged, "x"},
			{"COMMAND", forged},
			{"HELLO", proto, forged},
			{"SELECT", forged},
			{"CLIENT", "SETNAME", forged},
			{"CLIENT", "SETNAME", strings.Repeat("n", 2000)},
			{"AUTH", forged},
			{"SELECT", "1"},
			{"SELECT", "-1"},
			{"GET"},
			{"MULTI"},
			{"EVAL", "return 1", "0"},
			{"SUBSCRIBE", "x"},
			{"CONFIG", "GET", "*"},
			{"KEYS", "*"},
			{"SCAN", "0"},
			{"MONITOR"},
			{"CLIENT", "TRACKING", "ON"},
			{"CLIENT", "KILL", "ID", "1"},
			{"CLIENT", "REPLY", "OFF"},
			{"SET", forged, forged},
		} {
			if got := c.do(args...); got[0] != '-' || strings.Count(got, "\n") != 1 || strings.Count(got, "\r") != 1 {
				t.Errorf("RESP%s %.60q: %q", proto, args, got)
			}
			if got := c.do("ECHO", "next"); got != "$4\r\nnext\r\n" {
				t.Fatalf("RESP%s: after %.60q: %q", proto, args, got)
			}
		}
	}
}

func TestKeys_AreBytes(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	for _, id := range []string{"", ":", "a:b:", "\x00", "\r\n", "\xff\xfe", "*3\r\n", " ", "ü/%2F", strings.Repeat("k", 8000)} {
		r.put("event", 1, id, "v")
		for _, key := range []string{"event:" + id, "rowtide:event:1:" + id} {
			if got := c.do("GET", key); got != "$1\r\nv\r\n" {
				t.Errorf("%.40q: %q", key, got)
			}
			if got := c.do("MGET", key, key); got != "*2\r\n$1\r\nv\r\n$1\r\nv\r\n" {
				t.Errorf("%.40q: %q", key, got)
			}
		}
	}
}

// Of 64 MiB from a real Redis: TestNode_ServesLargeValues.
func TestLimits_LargeValuesAreServedOneByOne(t *testing.T) {
	r := newRig(t)
	value := strings.Repeat("0123456789abcdef", 1<<20) // 16 MiB, more than the store keeps
	r.put("event", 1, "1", value)
	r.put("event", 1, "2", "v")
	c := r.dial()
	for range 2 {
		if got := c.do("GET", "event:1"); got != fmt.Sprintf("$%d\r\n%s\r\n", len(value), value) {
			t.Fatalf("%d bytes: %.60q", len(got), got)
		}
	}
	if got := c.do("MGET", "event:1", "event:2", "event:1", "event:1", "event:1"); !strings.Contains(got, "ask for fewer keys") {
		t.Errorf("%.100q", got)
	}
	for _, args := range [][]string{{"SET", "event:1", value}, {"ECHO", value}} {
		if got := c.do(args...); got[0] != '-' || len(got) > 200 {
			t.Errorf("%s: %.100q", args[0], got)
		}
	}
	if got := c.do("GET", "event:2"); got != "$1\r\nv\r\n" {
		t.Errorf("%q", got)
	}
}

func TestLimits_ManyKeys(t *testing.T) {
	const n = 10_000
	ask := []string{"MGET"}
	for i := range n {
		ask = append(ask, fmt.Sprint("event:", i%(n/2))) // each twice
	}
	if got := newRig(t).dial().do(ask...); !strings.Contains(got, "at most 1000 keys (node.max_keys)") {
		t.Errorf("%.100q", got)
	}
	r := newRig(t, func(c *sidecar.Config) { c.MaxKeys = n })
	want := strings.Builder{}
	fmt.Fprintf(&want, "*%d\r\n", n)
	for i := range n {
		if i%3 == 0 && i < n/2 {
			r.put("event", 1, fmt.Sprint(i), fmt.Sprint(i))
		}
		if id := fmt.Sprint(i % (n / 2)); i%(n/2)%3 == 0 {
			fmt.Fprintf(&want, "$%d\r\n%s\r\n", len(id), id)
		} else {
			want.WriteString("$-1\r\n")
		}
	}
	if got := r.dial().do(ask...); got != want.String() {
		t.Errorf("%d bytes: %.100q", len(got), got)
	}
}

// A first word that is too large is not the second one, and is answered.
func TestLimits_AHugeCommandNameIsAnswered(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.MaxRequest = 16 << 10 })
	c := r.dial()
	huge := strings.Repeat("x", 20<<10)
	for _, words := range [][]string{{huge}, {huge, "POST"}, {huge, "PING"}} {
		if got := c.do(words...); !strings.Contains(got, "the request is too large") {
			t.Errorf("%.20q and %d more words: %.100q", words[0], len(words)-1, got)
		}
	}
	if got := c.do("PING"); got != "+PONG\r\n" {
		t.Errorf("PING: %q", got)
	}
}

// A length that was said is not room that was made.
func TestMalformed_LengthsAloneTakeNoMemory(t *testing.T) {
	r := newRig(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 200
	for range n {
		r.dial().send("*2\r\n$3\r\nGET\r\n$1000000\r\nx")
	}
	eventually(t, "all are connected", func() bool { return r.server.Counts().Connections == n })
	c := r.dial()
	c.do("PING")
	runtime.ReadMemStats(&after)
	if got := int(after.TotalAlloc-before.TotalAlloc) / n; got > 256<<10 {
		t.Errorf("a connection took %d bytes for an argument that never came", got)
	}
}

func TestAuth_StrangersGetLittleRoom(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.Password = "secret" })
	r.put("event", 1, "1", "v")
	c := r.dial()
	for _, args := range [][]string{
		{"AUTH", strings.Repeat("x", 17<<10)},
		{"HELLO", "3", "AUTH", "default", "secret", "SETNAME", "a", "SETNAME", "b", "SETNAME", "c"},
	} {
		if got := c.do(args...); !strings.HasPrefix(got, "-ERR the request is too large") {
			t.Errorf("%.60q: %q", args, got)
		}
	}
	c.do("AUTH", "secret")
	if got := c.do("ECHO", strings.Repeat("x", 17<<10)); len(got) < 17<<10 {
		t.Errorf("%q", got)
	}
}
