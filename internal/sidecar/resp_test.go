package sidecar_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/sidecar"
	"github.com/rowtide/rowtide/localsync"
)

func TestCommands_ReadTheCache(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", `{"id":1}`)
	r.put("event", 1, "a:b", `x`)
	r.put("event", 1, "gone", "")
	r.put("page", 2, "1", "<p>\r\n\x00")
	c := r.dial()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"GET", "event:1"}, "$8\r\n{\"id\":1}\r\n"},
		{[]string{"get", "rowtide:event:1:1"}, "$8\r\n{\"id\":1}\r\n"},
		{[]string{"GET", "event:a:b"}, "$1\r\nx\r\n"},
		{[]string{"GET", "rowtide:event:1:a:b"}, "$1\r\nx\r\n"},
		{[]string{"GET", "page:1"}, "$6\r\n<p>\r\n\x00\r\n"},
		{[]string{"GET", "event:gone"}, "$-1\r\n"}, // an EMPTY entry
		{[]string{"GET", "event:9"}, "$-1\r\n"},    // Redis lacks it
		{[]string{"MGET", "event:1", "event:9", "page:1", "event:1"}, "*4\r\n$8\r\n{\"id\":1}\r\n$-1\r\n$6\r\n<p>\r\n\x00\r\n$8\r\n{\"id\":1}\r\n"},
		{[]string{"EXISTS", "event:1", "event:1", "event:gone", "page:1"}, ":3\r\n"},
		{[]string{"STRLEN", "event:1"}, ":8\r\n"},
		{[]string{"STRLEN", "event:9"}, ":0\r\n"},
		{[]string{"TTL", "event:gone"}, ":-2\r\n"},
		{[]string{"GET", "evnt:1"}, "-ERR no module \"evnt\": want module:id with one of event, page\r\n"},
		{[]string{"GET", "rowtide:event:3:1"}, "-ERR module event has version 1 here, not 3\r\n"},
		{[]string{"GET", "event:" + strings.Repeat("k", 9000)}, "-ERR a key of 9006 bytes is too long: at most 8192\r\n"},
		{[]string{"MGET", "event:1", "evnt:1"}, "-ERR no module \"evnt\": want module:id with one of event, page\r\n"},
	} {
		if got := c.do(tt.args...); got != tt.want {
			t.Errorf("%.60q: %q, want %q", tt.args, got, tt.want)
		}
	}
	n := r.server.Counts()
	if n.Hits != 12 || n.Misses != 6 || n.Errors != 4 {
		t.Errorf("hits %d, misses %d, errors %d; want 12, 6, 4", n.Hits, n.Misses, n.Errors)
	}
}

// What is left is this node's to say: the bytes may be of a value that was found
// unchanged since, and their time is another machine's.
func TestTTL_IsWhatIsLeftOnThisNode(t *testing.T) {
	r := newRig(t)
	e := rowtide.Entry{
		Key: rowtide.Key{Module: "event", Version: 1, ID: "1"}, Version: 7, BuiltAt: time.Now().Add(-48 * time.Hour), TTL: time.Hour, Payload: []byte("x"),
	}
	if err := r.mr.Set(e.Key.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	ttl := localsync.DefaultTTL // by jitter a tenth more or less
	for command, unit := range map[string]time.Duration{"TTL": time.Second, "PTTL": time.Millisecond} {
		got := c.do(command, "event:1")
		n, err := strconv.Atoi(strings.Trim(got, ":\r\n"))
		if left := time.Duration(n) * unit; err != nil || left < ttl*89/100 || left > ttl*111/100 {
			t.Errorf("%s: %q, want about %s", command, got, ttl)
		}
	}
}

func TestGet_RedisAwayIsAnErrorNotAbsence(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", "kept")
	c := r.dial()
	c.do("GET", "event:1")
	r.mr.Close()
	if got := c.do("GET", "event:1"); got != "$4\r\nkept\r\n" {
		t.Errorf("what is local: %q", got)
	}
	for _, args := range [][]string{{"GET", "event:2"}, {"MGET", "event:1", "event:2"}, {"EXISTS", "event:2"}} {
		if got := c.do(args...); !strings.HasPrefix(got, "-ERR ") {
			t.Errorf("%v: %q, want an error", args, got)
		}
	}
}

func TestGet_ForeignBytesAreAnError(t *testing.T) {
	r := newRig(t)
	if err := r.mr.Set("rowtide:event:1:5", "somebody else's"); err != nil {
		t.Fatal(err)
	}
	if got := r.dial().do("GET", "event:5"); !strings.HasPrefix(got, "-ERR ") {
		t.Errorf("%q, want an error", got)
	}
}

func TestRESP3_HasItsOwnNullMapAndText(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	hello := c.do("HELLO", "3", "SETNAME", "me")
	if !strings.HasPrefix(hello, "%7\r\n$6\r\nserver\r\n") || !strings.Contains(hello, "$5\r\nproto\r\n:3\r\n") {
		t.Errorf("%q", hello)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"GET", "event:9"}, "_\r\n"},
		{[]string{"MGET", "event:9"}, "*1\r\n_\r\n"},
		{[]string{"CLIENT", "GETNAME"}, "$2\r\nme\r\n"},
		{[]string{"RESET"}, "+RESET\r\n"},
		{[]string{"CLIENT", "GETNAME"}, "$-1\r\n"},
	} {
		if got := c.do(tt.args...); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
	}
	c.do("HELLO", "3")
	if got := c.do("INFO", "server"); !strings.HasPrefix(got, "=") || !strings.Contains(got, "\r\ntxt:# Server\r\n") {
		t.Errorf("%q", got)
	}
	if got := c.do("HELLO", "2"); !strings.HasPrefix(got, "*14\r\n") {
		t.Errorf("%q", got)
	}
}

func TestWrites_AreRefusedAndNameTheWriter(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	for _, args := range [][]string{
		{"SET", "event:1", "x"},
		{"del", "event:1"},
		{"FLUSHALL"},
		{"EXPIRE", "event:1", "1"},
		{"INCR"},
		{"GETDEL", "event:1"},
		{"SET", "event:1", strings.Repeat("x", 3<<20)}, // larger than any request that is served
	} {
		got := c.do(args...)
		if !strings.HasPrefix(got, "-READONLY ") || !strings.Contains(got, "the rowtide daemon") {
			t.Errorf("%.40q: %q", args, got)
		}
	}
	if n := r.server.Counts().Writes; n != 7 {
		t.Errorf("%d writes counted", n)
	}
}

func TestPipeline_IsAnsweredInOrder(t *testing.T) {
	r := newRig(t)
	const n = 5000
	for i := range n {
		if i%2 == 0 {
			r.put("event", 1, fmt.Sprint(i), strings.Repeat("v", i%300+1))
		}
	}
	for _, addr := range [][2]string{{"tcp", r.addr}, {"unix", r.socket}} {
		c := dial(t, addr[0], addr[1])
		go func() {
			for i := range n {
				if _, err := c.Write([]byte(encode("GET", fmt.Sprintf("event:%d", i)) + encode("ECHO", fmt.Sprint(i)))); err != nil {
					return
				}
			}
		}()
		for i := range n {
			want := "$-1\r\n"
			if i%2 == 0 {
				want = fmt.Sprintf("$%d\r\n%s\r\n", i%300+1, strings.Repeat("v", i%300+1))
			}
			if got := c.reply(); got != want {
				t.Fatalf("%v: reply %d is %q", addr, i, got)
			}
			if got := c.reply(); got != fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(i)), i) {
				t.Fatalf("%v: echo %d is %q", addr, i, got)
			}
		}
	}
}

func TestMalformed_EndsTheConnectionWithAnError(t *testing.T) {
	r := newRig(t)
	for raw, want := range map[string]string{
		"*1\r\n$9223372036854775807\r\n":        "-ERR Protocol error: invalid bulk length\r\n",
		"*1\r\n$-5\r\n":                         "-ERR Protocol error: invalid bulk length\r\n",
		"*1\r\n$536870913\r\n":                  "-ERR Protocol error: invalid bulk length\r\n",
		"*9223372036854775807\r\n":              "-ERR Protocol error: invalid multibulk length\r\n",
		"*1048577\r\n":                          "-ERR Protocol error: invalid multibulk length\r\n",
		"*x\r\n":                                "-ERR Protocol error: invalid multibulk length\r\n",
		"*1\r\nGET\r\n":                         "-ERR Protocol error: expected '$', got 'G'\r\n",
		"GET \"event:1\r\n":                     "-ERR Protocol error: unbalanced quotes in request\r\n",
		strings.Repeat("x", 5000):               "-ERR Protocol error: too big inline request\r\n",
		"*1\r\n$" + strings.Repeat("1", 5000):   "-ERR Protocol error: too big bulk count string\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET": "-ERR unknown command 'POST', with args beginning with: '/' 'HTTP/1.1' \r\n",
		encode("PING") + "*1\r\n$x\r\n":         "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n",
	} {
		c := r.dial()
		c.send(raw)
		if got := c.ended(); got != want {
			t.Errorf("%.40q: %q, want %q", raw, got, want)
		}
	}
	// A command without arguments is none, and nothing is wrong with it.
	c := r.dial()
	c.send("*0\r\n\r\n  \r\nping \"a b\"\r\n")
	if got := c.reply(); got != "$3\r\na b\r\n" {
		t.Errorf("%q", got)
	}
}

func TestLimits_LargeRequestsAreRefusedAndTheConnectionLivesOn(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.MaxKeys, c.MaxRequest = 3, 16<<10 })
	r.put("event", 1, "1", "v")
	c := r.dial()
	for _, args := range [][]string{
		{"MGET", "event:1", "event:1", "event:1", "event:1"},
		{"ECHO", strings.Repeat("x", 17<<10)},
	} {
		if got := c.do(args...); !strings.Contains(got, "at most 3 keys (node.max_keys) and 16384 bytes (node.max_request)") {
			t.Errorf("%.100q", got)
		}
	}
	c.send("MGET event:1 event:1 event:1 event:1\r\n") // as a person types it
	if got := c.reply(); !strings.Contains(got, "at most 3 keys (node.max_keys)") {
		t.Errorf("%.100q", got)
	}
	if got := c.do("MGET", "event:1", "event:1", "event:1"); !strings.HasPrefix(got, "*3\r\n$1\r\nv\r\n") {
		t.Errorf("%q", got)
	}
}

func TestLimits_OneConnectionTooManyIsRefused(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.MaxConnections = 2 })
	a, b := r.dial(), r.dial()
	a.do("PING")
	b.do("PING")
	if got := r.dial().ended(); got != "-ERR max number of clients reached\r\n" {
		t.Errorf("%q", got)
	}
	b.Close()
	eventually(t, "a place is free", func() bool {
		c := r.dial()
		c.send(encode("PING"))
		line, _ := c.r.ReadString('\n')
		return line == "+PONG\r\n"
	})
}

func TestSlowReader_IsCut(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.WriteTimeout = 50 * time.Millisecond })
	r.put("event", 1, "1", strings.Repeat("v", 100<<10))
	c := r.dial()
	go func() {
		for { // ends when the server has cut the connection
			if _, err := c.Write([]byte(encode("GET", "event:1"))); err != nil {
				return
			}
		}
	}()
	eventually(t, "the connection is cut", func() bool { return r.server.Counts().Slow == 1 && r.server.Counts().Connections == 0 })
}

func TestIdle_IsCut(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.IdleTimeout = 50 * time.Millisecond })
	c := r.dial()
	c.do("PING")
	if got := c.ended(); got != "" {
		t.Errorf("%q", got)
	}
	if n := r.server.Counts().Idle; n != 1 {
		t.Errorf("%d idle connections counted", n)
	}
}

func TestAuth_WantsThePassword(t *testing.T) {
	r := newRig(t, func(c *sidecar.Config) { c.Password = "secret" })
	r.put("event", 1, "1", "v")
	const noauth, wrong = "-NOAUTH Authentication required.\r\n", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
	c := r.dial()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"GET", "event:1"}, noauth},
		{[]string{"SET", "event:1", "x"}, noauth},
		{[]string{"FOO"}, noauth},
		{[]string{"INFO"}, noauth},
		{[]string{"AUTH", "Secret"}, wrong},
		{[]string{"AUTH", "root", "secret"}, wrong},
		{[]string{"HELLO", "3", "AUTH", "default", "no"}, wrong},
		{[]string{"GET", "event:1"}, noauth},
		{[]string{"AUTH", "secret"}, "+OK\r\n"},
		{[]string{"GET", "event:1"}, "$1\r\nv\r\n"},
		{[]string{"RESET"}, "+RESET\r\n"},
		{[]string{"GET", "event:1"}, noauth},
		{[]string{"AUTH", "default", "secret"}, "+OK\r\n"},
		{[]string{"QUIT"}, "+OK\r\n"},
	} {
		if got := c.do(tt.args...); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
	}
	if got := c.ended(); got != "" {
		t.Errorf("after QUIT: %q", got)
	}
	c = r.dial()
	if got := c.do("HELLO", "3"); !strings.HasPrefix(got, "-NOAUTH HELLO must be called") {
		t.Errorf("%q", got)
	}
	if got := c.do("HELLO", "3", "AUTH", "default", "secret"); !strings.HasPrefix(got, "%7") {
		t.Errorf("%q", got)
	}
}

func TestClose_AnswersWhatHasArrived(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", "v")
	idle, busy := r.dial(), r.dial()
	idle.do("PING")
	busy.do("PING")
	asked, release := make(chan struct{}), make(chan struct{})
	r.mr.Server().SetPreHook(func(_ *server.Peer, cmd string, _ ...string) bool {
		if cmd == "MGET" {
			close(asked)
			<-release
		}
		return false
	})
	busy.send(encode("GET", "event:1") + encode("ECHO", "x"))
	<-asked
	go r.close()
	if got := idle.ended(); got != "" {
		t.Errorf("idle connection: %q", got)
	}
	close(release)
	if got := busy.ended(); got != "$1\r\nv\r\n$1\r\nx\r\n" {
		t.Errorf("busy connection: %q", got)
	}
	for range 2 {
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	}
}

func TestInfo_TellsOfModulesAndBus(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "1", "v")
	c := r.dial()
	c.do("GET", "event:1")
	c.do("GET", "event:1")
	c.do("MGET", "page:7", "event:1", "page:8") // each module is asked for its own
	got := c.do("INFO")
	for _, want := range []string{
		"redis_version:7", "rowtide_version:v1.2.3", "connected_clients:1", "keyspace_hits:3", "degraded:0", "store_entries:1",
		"event.1:local=2,redis=1,empty=0,stale=0,errors=0", "page.2:local=0,redis=2,empty=2,",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("INFO lacks %s:\n%s", want, got)
		}
	}
	if got := c.do("INFO", "nosuch"); got != "$0\r\n\r\n" {
		t.Errorf("%q", got)
	}
	if got := c.do("CLIENT", "LIST"); !regexp.MustCompile(`^\$\d+\r\nid=\d+ addr=127.0.0.1:\d+ .* cmd=client user=default\n\r\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}
