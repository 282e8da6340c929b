package binlog_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/binlog"
)

func validConfig() binlog.Config {
	return binlog.Config{Addr: "db:3306", User: "rowtide", ServerID: 7}.WithDefaults()
}

func TestConfig_Validate(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*binlog.Config)
		want   string
	}{
		{"valid", func(*binlog.Config) {}, ""},
		{"position", func(c *binlog.Config) { c.StartAt = "binlog.000004:157" }, ""},
		{"IPv6", func(c *binlog.Config) { c.Addr = "[::1]:3306" }, ""},
		{"no addr", func(c *binlog.Config) { c.Addr = "" }, "source.addr is missing: give the server's host:port"},
		{"no port", func(c *binlog.Config) { c.Addr = "db" }, `source.addr "db": want host:port`},
		{"port 0", func(c *binlog.Config) { c.Addr = "db:0" }, `source.addr "db:0": port must be 1 to 65535`},
		{"port too large", func(c *binlog.Config) { c.Addr = "db:65536" }, `source.addr "db:65536": port must be 1 to 65535`},
		{"no user", func(c *binlog.Config) { c.User = "" }, "source.user is missing: name the MySQL or MariaDB account to replicate with"},
		{"no server id", func(c *binlog.Config) { c.ServerID = 0 }, "source.server_id is missing: choose a number that no server or replica of this cluster uses"},
		{"mode", func(c *binlog.Config) { c.Mode = "GTID" }, `source.mode "GTID": want auto, gtid or file`},
		{"start", func(c *binlog.Config) { c.StartAt = "now" }, `source.start_at "now": want earliest, latest or FILE:POS`},
		{"timeout", func(c *binlog.Config) { c.ReadTimeout = 9 * time.Second }, "source.read_timeout 9s is below two heartbeats of 5s: an idle server would look dead"},
		{"tls", func(c *binlog.Config) { c.TLS = "yes" }, `source.tls "yes": want off, on or skip-verify`},
		{"ca is away", func(c *binlog.Config) { c.TLS, c.TLSCA = "on", "/nowhere/ca.pem" }, "source.tls_ca: open /nowhere/ca.pem"},
		{"ca is none", func(c *binlog.Config) { c.TLS, c.TLSCA = "skip-verify", noPEM }, "holds no PEM certificate"},
		{"heartbeat row", func(c *binlog.Config) { c.HeartbeatRow = time.Millisecond }, "source.heartbeat_row 1ms: want 0 for none, or at least 10ms"},
		{"backfill schema", func(c *binlog.Config) { c.Backfill.Schema = "a.b" }, `source.backfill.schema "a.b": want the name of a schema`},
		{"backfill chunk", func(c *binlog.Config) { c.Backfill.Chunk = time.Minute }, "source.backfill.chunk 1m0s: want 1ms to 10s"},
		{"backfill rate", func(c *binlog.Config) { c.Backfill.Rate = -1 }, "source.backfill.rate -1: want rows per second, or 0 for no limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := validConfig()
			tt.change(&c)
			err := c.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err=%v, want %q", err, tt.want)
			}
		})
	}
}

func TestConfig_AllFaultsAtOnce(t *testing.T) {
	err := binlog.Config{Mode: "x", StartAt: "y", TLS: "z"}.WithDefaults().Validate()
	if got := strings.Count(err.Error(), "\n") + 1; got != 6 {
		t.Errorf("%d faults, want 6:\n%v", got, err)
	}
}

func TestConfig_Defaults(t *testing.T) {
	got := binlog.Config{}.WithDefaults()
	want := binlog.Config{Mode: "auto", StartAt: "earliest", Heartbeat: 5 * time.Second, ReadTimeout: 15 * time.Second, TLS: "off"}
	want.Backfill = binlog.BackfillConfig{Schema: "rowtide", Auto: new(true), Chunk: 500 * time.Millisecond}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := (binlog.Config{Heartbeat: time.Minute}).WithDefaults().ReadTimeout; got != 3*time.Minute {
		t.Errorf("read timeout %s, want three heartbeats", got)
	}
}
