//go:build integration

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// sidecarRig is a `rowtide node` process over entries that the test writes.
type sidecarRig struct {
	*both
	addr, http, socket string
	path               string // of its config
	p                  *testenv.Program
	bus                *publisher.Kafka
}

// newSidecar starts one with the module show and others in YAML; more are keys of
// its section.
func newSidecar(t *testing.T, more string, modules ...string) *sidecarRig {
	t.Helper()
	s := &sidecarRig{both: newBoth(t), addr: testenv.FreeAddr(t), http: testenv.FreeAddr(t), socket: filepath.Join(t.TempDir(), "s")}
	s.bus, _ = s.daemon() // heartbeats too
	s.path = writeConfig(t, `
redis: {addrs: ["%s"], prefix: %s}
kafka: {brokers: ["%s"], topic: %s}
node: {listen: "%s", http: "%s", socket: %s%s}
modules: [%s]
`, testenv.Redis(t), s.cfg.Prefix, strings.Join(s.cfg.Brokers, `","`), s.cfg.Topic, s.addr, s.http, s.socket, more,
		strings.Join(append(modules, `{name: show, key: "{id}", from: {table: shop.show}}`), ", "))
	s.p = startProcess(t, nil, "node", "-c", s.path)
	eventually(t, "the sidecar is ready", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+s.http+"/readyz")
		return code == 200, body + s.p.Log.String()
	})
	return s
}

// shell runs a program to its end, which must be a good one.
func shell(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

func (s *sidecarRig) cli(args ...string) string {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.addr)
	return shell(s.t, "", "redis-cli", append([]string{"-h", host, "-p", port}, args...)...)
}

func TestNode_ServesRedisCLI(t *testing.T) {
	s := newSidecar(t, "")
	s.put(show(1, 7))
	full := show(1, 7).Key.Redis(s.cfg.Prefix)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"GET", "show:1"}, "v7"},
		{[]string{"-3", "GET", full}, "v7"},
		{[]string{"--no-raw", "-3", "GET", "show:2"}, "(nil)"},
		{[]string{"--no-raw", "-3", "MGET", "show:1", "show:2"}, "1) \"v7\"\n2) (nil)"},
		{[]string{"--no-raw", "EXISTS", "show:1", "show:1"}, "(integer) 2"},
		{[]string{"-n", "0", "STRLEN", "show:1"}, "2"},
	} {
		if got := s.cli(tt.args...); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.args, got, tt.want)
		}
	}
	if got := s.cli("SET", "show:1", "x"); !strings.HasPrefix(got, "READONLY ") {
		t.Errorf("SET: %q", got)
	}
	if got := s.cli("-3", "INFO", "modules"); !strings.Contains(got, "show.1:local=") {
		t.Errorf("INFO: %q", got)
	}
	// Typed in, as a person does, over the socket; it asks for COMMAND DOCS first.
	if got := shell(t, "get show:1\nhelp get\n", "redis-cli", "-s", s.socket); !strings.HasPrefix(got, "v7\n") {
		t.Errorf("over the socket: %q", got)
	}
	st, err := os.Stat(s.socket)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v %v", st, err)
	}
}

func TestNode_ServesGoRedis(t *testing.T) {
	s := newSidecar(t, ", password: secret")
	s.put(show(1, 7))
	for _, proto := range []int{2, 3} {
		for _, at := range [][2]string{{"tcp", s.addr}, {"unix", s.socket}} {
			c := redis.NewClient(&redis.Options{Network: at[0], Addr: at[1], Protocol: proto, Password: "secret", ClientName: "test"})
			defer c.Close()
			ctx := t.Context()
			if got, err := c.Get(ctx, "show:1").Result(); got != "v7" || err != nil {
				t.Errorf("RESP%d %s GET: %q %v", proto, at[0], got, err)
			}
			if _, err := c.Get(ctx, "show:2").Result(); !errors.Is(err, redis.Nil) {
				t.Errorf("RESP%d %s GET of nothing: %v", proto, at[0], err)
			}
			if got, err := c.MGet(ctx, "show:1", "show:2").Result(); err != nil || len(got) != 2 || got[0] != "v7" || got[1] != nil {
				t.Errorf("RESP%d %s MGET: %v %v", proto, at[0], got, err)
			}
			if d, err := c.TTL(ctx, "show:1").Result(); err != nil || d < 21*time.Hour || d > 27*time.Hour { // a day, more or less
				t.Errorf("RESP%d %s TTL: %v %v", proto, at[0], d, err)
			}
			if err := c.Set(ctx, "show:1", "x", 0).Err(); !redis.IsReadOnlyError(err) {
				t.Errorf("RESP%d %s SET: %v", proto, at[0], err)
			}
			if m, err := c.Command(ctx).Result(); err != nil || m["get"] == nil || m["get"].FirstKeyPos != 1 {
				t.Errorf("RESP%d %s COMMAND: %v %v", proto, at[0], m, err)
			}
			cmds, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := range 1000 {
					p.Echo(ctx, i)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, cmd := range cmds {
				if got := cmd.(*redis.StringCmd).Val(); got != strconv.Itoa(i) {
					t.Fatalf("RESP%d %s: reply %d of a pipeline is %q", proto, at[0], i, got)
				}
			}
		}
	}
	wrong := redis.NewClient(&redis.Options{Addr: s.addr, Password: "wrong"})
	defer wrong.Close()
	if err := wrong.Get(t.Context(), "show:1").Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") {
		t.Errorf("a wrong password: %v", err)
	}
}

// The client is the one of Debian's python3-redis.
const pythonClient = `
import sys, redis
for r in (redis.Redis(port=int(sys.argv[1])), redis.Redis(unix_socket_path=sys.argv[2])):
    assert r.ping()
    assert r.get("show:1") == b"v7", r.get("show:1")
    assert r.get("show:2") is None
    assert r.mget(["show:1", "show:2"]) == [b"v7", None]
    assert r.exists("show:1", "show:2") == 1 and r.strlen("show:1") == 2 and 75000 < r.ttl("show:1") < 97000
    p = r.pipeline(transaction=False)
    for i in range(100):
        p.echo(str(i))
    assert p.execute() == [str(i).encode() for i in range(100)]
    info = r.info()
    assert info["degraded"] == 0 and info["show.1"]["errors"] == 0, info
    assert r.client_setname("p") and r.client_getname() == "p" and r.client_list()[-1]["name"] == "p"
    assert r.command_count() == len(r.command()) > 10
    try:
        r.set("show:1", "x")
        raise SystemExit("SET was taken")
    except redis.exceptions.ReadOnlyError:
        pass
print("good")
`

func TestNode_ServesPythonRedis(t *testing.T) {
	python := testenv.Python(t, "redis")
	s := newSidecar(t, "")
	s.put(show(1, 7))
	_, port, _ := net.SplitHostPort(s.addr)
	if got := shell(t, "", python, "-c", pythonClient, port, s.socket); got != "good" {
		t.Error(got)
	}
}

// raw is a connection that sees every byte of a reply.
type raw struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dialRaw(t *testing.T, addr string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, conn, bufio.NewReader(conn)}
}

// do sends a command followed by an ECHO, and returns all that comes before the
// echo's reply.
func (c *raw) do(args ...string) string {
	c.t.Helper()
	var b strings.Builder
	for _, cmd := range [][]string{args, {"ECHO", "~end~"}} {
		fmt.Fprintf(&b, "*%d\r\n", len(cmd))
		for _, a := range cmd {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	if _, err := c.Write([]byte(b.String())); err != nil {
		c.t.Fatal(err)
	}
	const end = "$5\r\n~end~\r\n"
	var got strings.Builder
	for !strings.HasSuffix(got.String(), end) {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%q: %v after %q", args, err, got.String())
		}
		got.WriteString(line)
	}
	return strings.TrimSuffix(got.String(), end)
}

// The same commands on the sidecar and on a real Redis that holds the same values
// get the same bytes.
func TestNode_AnswersAsRedisDoes(t *testing.T) {
	s := newSidecar(t, "")
	own, err := testenv.StartRedis(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop(context.Background()) })
	s.put(show(1, 7))
	theirs, ours := dialRaw(t, own.Addr), dialRaw(t, s.addr)
	theirs.do("SET", "show:1", "v7", "EX", "3600")
	version := regexp.MustCompile(`version\r\n\$\d+\r\n[\d.]+\r\n|id\r\n:\d+`)
	for _, proto := range []string{"2", "3"} {
		for _, args := range [][]string{
			{"HELLO", proto},
			{"GET", "show:1"},
			{"GET", "show:2"},
			{"get"},
			{"GET", "a", "b"},
			{"MGET", "show:1", "show:2", "show:1"},
			{"MGET"},
			{"EXISTS", "show:1", "show:1", "show:2"},
			{"EXISTS"},
			{"STRLEN", "show:1"},
			{"STRLEN", "show:2"},
			{"TTL", "show:2"},
			{"PTTL", "show:2"},
			{"PING"},
			{"PING", "x"},
			{"PING", "x", "y"},
			{"ECHO"},
			{"SELECT", "0"},
			{"SELECT", "99"},
			{"SELECT", "x"},
			{"SELECT"},
			{"HELLO", "4"},
			{"HELLO", "x"},
			{"HELLO", proto, "foo"},
			{"HELLO", proto, "SETNAME", "a b"},
			{"AUTH", "x"},
			{"AUTH", "a", "b"},
			{"AUTH", "a", "b", "c"},
			{"AUTH"},
			{"CLIENT"},
			{"CLIENT", "foo"},
			{"CLIENT", "GETNAME"},
			{"CLIENT", "SETNAME", "n"},
			{"CLIENT", "GETNAME"},
			{"CLIENT", "SETNAME", "a b"},
			{"CLIENT", "ID", "x"},
			{"CLIENT", "SETNAME", ""},
			{"COMMAND", "foo"},
			{"COMMAND", "COUNT", "x"},
			{"COMMAND", "INFO", "nosuch"},
			{"COMMAND", "DOCS", "nosuch"},
			{"INFO", "nosuch"},
			{"nosuch", "a", "b"},
			{"NoSuch"},
			{"nosuch", strings.Repeat("x", 200), "y"},
			{strings.Repeat("c", 200)},
			{"RESET"},
			{"CLIENT", "GETNAME"},
		} {
			want, got := version.ReplaceAllString(theirs.do(args...), "#"), version.ReplaceAllString(ours.do(args...), "#")
			if got != want {
				t.Errorf("RESP%s %.80q:\n got %q\nwant %q", proto, args, got, want)
			}
		}
	}
}
