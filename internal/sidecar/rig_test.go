package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/sidecar"
	"github.com/rowtide/rowtide/localsync"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// sarama's metrics library starts one ticker per process and never ends it.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

// patience bounds every wait for a signal; a test that needs it has failed.
const patience = 10 * time.Second

// quiet is a bus on which only the test speaks.
type quiet struct {
	apply func(key string, value []byte)
	// first is on the control topic at the start.
	first []rowtide.ModuleControl
}

func (*quiet) Open(context.Context) (int32, error) { return 1, nil }

func (*quiet) Run(ctx context.Context, _ localsync.Sink) error {
	<-ctx.Done()
	return nil
}

func (*quiet) Close() error { return nil }

func (q *quiet) Control(_ context.Context, apply func(key string, value []byte)) error {
	q.apply = apply
	for _, m := range q.first {
		q.tell(m)
	}
	return nil
}

// tell is a record on the control topic.
func (q *quiet) tell(mc rowtide.ModuleControl) { q.apply(mc.Name, mc.AppendControl(nil)) }

// told is a record; previous is 0 unless version is being filled.
func told(module string, version, previous uint16) rowtide.ModuleControl {
	return rowtide.ModuleControl{Name: module, Version: version, Previous: previous, Settings: rowtide.ModuleSettings{Codec: "json"}}
}

// rig is a sidecar whose Redis holds what the test puts there.
type rig struct {
	t      testing.TB
	mr     *miniredis.Miniredis
	bus    *quiet
	server *sidecar.Server
	addr   string // of Redis's protocol
	socket string
	done   chan error // of both Serve calls
}

// newRig knows the module event from the control topic and page from its config.
func newRig(t testing.TB, edit ...func(*sidecar.Config)) *rig {
	t.Helper()
	return newRigOf(t, []rowtide.ModuleControl{told("event", 1, 0)}, []sidecar.Module{{Name: "page", Version: 2, Codec: "raw"}}, edit...)
}

// newRigOf finds modules on the control topic and in its config.
func newRigOf(t testing.TB, first []rowtide.ModuleControl, given []sidecar.Module, edit ...func(*sidecar.Config)) *rig {
	t.Helper()
	r := &rig{t: t, bus: &quiet{first: first}, done: make(chan error, 2)}
	r.mr = miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: r.mr.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	log := slog.New(slog.DiscardHandler)
	modules := sidecar.NewModules("rowtide", log, given...)
	cache, err := localsync.Open(context.Background(), localsync.Options{
		Redis: rdb, RedisTimeout: localsync.DefaultLoadTimeout, Bus: r.bus, MaxBytes: 16 << 20, Observer: modules, Logger: log,
		// Nobody sends heartbeats here.
		Silence: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close(context.Background()) })
	select {
	case <-cache.Ready():
	case <-time.After(patience):
		t.Fatal("the cache does not become ready")
	}
	if err := modules.Serve(cache); err != nil {
		t.Fatal(err)
	}
	cfg := sidecar.Config{}
	for _, e := range edit {
		e(&cfg)
	}
	r.server = sidecar.New(cfg.WithDefaults(), cache, modules, "v1.2.3", log)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr, r.socket = tcp.Addr().String(), filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range []net.Listener{tcp, unix} {
		go func() { r.done <- r.server.Serve(ln) }()
	}
	t.Cleanup(r.close)
	return r
}

func (r *rig) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.server.Close(ctx)
}

// put writes an entry as the daemon does; an empty value is an EMPTY entry.
func (r *rig) put(module string, version uint16, id, value string) {
	r.t.Helper()
	e := rowtide.Entry{
		Key: rowtide.Key{Module: module, Version: version, ID: id}, Version: 7, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(value),
	}
	if value == "" {
		e.Flags = rowtide.FlagEmpty
	}
	if err := r.mr.Set(e.Key.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		r.t.Fatal(err)
	}
}

// client is a raw connection.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (r *rig) dial() *client {
	r.t.Helper()
	return dial(r.t, "tcp", r.addr)
}

func dial(t testing.TB, network, addr string) *client {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t, conn, bufio.NewReader(conn)}
}

// send writes raw bytes.
func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := c.Write([]byte(raw)); err != nil {
		c.t.Fatal(err)
	}
}

// do sends one command and returns the reply's bytes.
func (c *client) do(args ...string) string {
	c.t.Helper()
	c.send(encode(args...))
	return c.reply()
}

func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// reply reads one reply of any type, raw.
func (c *client) reply() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read a reply: %v after %q", err, line)
	}
	var n int
	switch line[0] {
	case '*', '~', '%':
		if _, err := fmt.Sscanf(line[1:], "%d", &n); err != nil {
			c.t.Fatalf("%q: %v", line, err)
		}
		if line[0] == '%' {
			n *= 2
		}
		for range n {
			line += c.reply()
		}
	case '$', '=':
		if _, err := fmt.Sscanf(line[1:], "%d", &n); err != nil {
			c.t.Fatalf("%q: %v", line, err)
		}
		if n >= 0 {
			b := make([]byte, n+2)
			for at := 0; at < len(b); {
				m, err := c.r.Read(b[at:])
				if err != nil {
					c.t.Fatal(err)
				}
				at += m
			}
			line += string(b)
		}
	}
	return line
}

// ended waits until the server has closed the connection and returns what it said.
func (c *client) ended() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Fatalf("the connection is still open after %q", b.String())
		}
		return b.String()
	}
}
