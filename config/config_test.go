package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/config"
)

const minimal = `
source: {addr: "db:3306", user: rowtide, server_id: 7}
redis: {addrs: ["redis:6379"]}
kafka: {brokers: ["kafka:9092"]}
modules:
  - name: event
    key: "{id}"
    from: {table: shop.event}
`

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rowtide.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string) config.Config {
	t.Helper()
	c, err := config.Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoad_Defaults(t *testing.T) {
	c := load(t, minimal)
	for _, tt := range []struct {
		key       string
		got, want any
	}{
		{"name", c.Name, "main"},
		{"source.mode", c.Source.Mode, "auto"},
		{"source.start_at", c.Source.StartAt, "earliest"},
		{"source.heartbeat", c.Source.Heartbeat, 5 * time.Second},
		{"source.tls", c.Source.TLS, "off"},
		{"redis.prefix", c.Redis.Prefix, "rowtide"},
		{"redis.tls", c.Redis.TLS, "off"},
		{"kafka.topic", c.Kafka.Topic, "rowtide.invalidations"},
		{"kafka.prefix", c.Kafka.Prefix, "rowtide"},
		{"kafka.heartbeat", c.Kafka.Heartbeat, 200 * time.Millisecond},
		{"checkpoint.store", c.Checkpoint.Store, "redis"},
		{"aggregator.max_pending", c.Aggregator.MaxPending, 32 << 20},
		{"http.listen", c.HTTP.Listen, "127.0.0.1:8077"},
		{"log.level", c.Log.Level, "info"},
		{"log.format", c.Log.Format, "text"},
		{"modules.version", c.Modules[0].Version, uint16(1)},
		{"modules.ttl", c.Modules[0].TTL, 24 * time.Hour},
		{"modules.on_error", c.Modules[0].OnError, "keep"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %v, want %v", tt.key, tt.got, tt.want)
		}
	}
}

func TestLoad_FileSetsEverything(t *testing.T) {
	c := load(t, `
name: second
source: {addr: "db:3306", user: u, password: p, server_id: 9, mode: file, start_at: "binlog.000004:157", heartbeat: 1s, read_timeout: 4s, tls: skip-verify}
redis: {addrs: [a:1, b:2], cluster: true, username: ru, password: rp, prefix: shop, tls: "on"}
kafka: {brokers: [k:1], topic: t, partitions: 3, replication: 2, retention: 1h, heartbeat: 100ms}
checkpoint: {store: file, path: /var/lib/rowtide/checkpoint}
aggregator: {max_pending: 1000}
http: {listen: ""}
log: {level: debug, format: json}
modules:
  - name: film_page
    version: 3
    key: "{film_id}"
    ttl: 1h30m
    empty: {ttl: 5s, refresh: 1s}
    rebuild:
      one: SELECT film_id, Title FROM shop.film WHERE film_id IN (:keys)
      many:
        - {name: camelCase, query: "SELECT film_id, x FROM shop.y WHERE film_id IN (:keys)"}
    watch:
      - {table: shop.film, key: "{film_id}"}
      - {table: shop.y, columns: [x], keys: "SELECT film_id FROM shop.z WHERE y = :ID"}
`)
	m := c.Modules[0]
	for _, tt := range []struct {
		key       string
		got, want any
	}{
		{"name", c.Name, "second"},
		{"source.server_id", c.Source.ServerID, uint32(9)},
		{"source.start_at", c.Source.StartAt, "binlog.000004:157"},
		{"source.read_timeout", c.Source.ReadTimeout, 4 * time.Second},
		{"redis.addrs", strings.Join(c.Redis.Addrs, " "), "a:1 b:2"},
		{"redis.tls", c.Redis.TLS, "on"},
		{"kafka.prefix", c.Kafka.Prefix, "shop"},
		{"kafka.partitions", c.Kafka.Partitions, int32(3)},
		{"kafka.replication", c.Kafka.Replication, int16(2)},
		{"kafka.retention", c.Kafka.Retention, time.Hour},
		{"checkpoint.path", c.Checkpoint.Path, "/var/lib/rowtide/checkpoint"},
		{"aggregator.max_pending", c.Aggregator.MaxPending, 1000},
		{"http.listen", c.HTTP.Listen, ""},
		{"log.format", c.Log.Format, "json"},
		{"modules.version", m.Version, uint16(3)},
		{"modules.ttl", m.TTL, 90 * time.Minute},
		{"modules.empty", m.Empty, aggregator.EmptyConfig{TTL: 5 * time.Second, Refresh: time.Second}},
		{"many.name keeps its case", m.Rebuild.Many[0].Name, "camelCase"},
		{"one keeps its case", m.Rebuild.One, "SELECT film_id, Title FROM shop.film WHERE film_id IN (:keys)"},
		{"watch.keys", m.Watch[1].Keys, "SELECT film_id FROM shop.z WHERE y = :ID"},
		{"watch.columns", strings.Join(m.Watch[1].Columns, " "), "x"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %v, want %v", tt.key, tt.got, tt.want)
		}
	}
}

func TestLoad_EnvironmentOverFile(t *testing.T) {
	for name, val := range map[string]string{
		"ROWTIDE_NAME": "from-env", "ROWTIDE_SOURCE_PASSWORD": "s3cret", "ROWTIDE_SOURCE_ADDR": "other:3307", "ROWTIDE_SOURCE_SERVER_ID": "12",
		"ROWTIDE_REDIS_ADDRS": "r1:1,r2:2", "ROWTIDE_REDIS_MASTER": "mymaster", "ROWTIDE_KAFKA_BROKERS": "k1:1,k2:2", "ROWTIDE_KAFKA_HEARTBEAT": "150ms",
		"ROWTIDE_HTTP_LISTEN": "127.0.0.1:1", "ROWTIDE_AGGREGATOR_MAX_PENDING": "77", "ROWTIDE_LOG_LEVEL": "warn", "ROWTIDE_SOURCE_USER": "", // empty is not set
	} {
		t.Setenv(name, val)
	}
	c := load(t, minimal)
	for _, tt := range []struct {
		key       string
		got, want any
	}{
		{"name", c.Name, "from-env"},
		{"source.password", c.Source.Password, "s3cret"},
		{"source.addr", c.Source.Addr, "other:3307"},
		{"source.server_id", c.Source.ServerID, uint32(12)},
		{"source.user", c.Source.User, "rowtide"},
		{"redis.addrs", strings.Join(c.Redis.Addrs, " "), "r1:1 r2:2"},
		{"redis.master", c.Redis.Master, "mymaster"},
		{"kafka.brokers", strings.Join(c.Kafka.Brokers, " "), "k1:1 k2:2"},
		{"kafka.heartbeat", c.Kafka.Heartbeat, 150 * time.Millisecond},
		{"http.listen", c.HTTP.Listen, "127.0.0.1:1"},
		{"aggregator.max_pending", c.Aggregator.MaxPending, 77},
		{"log.level", c.Log.Level, "warn"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %v, want %v", tt.key, tt.got, tt.want)
		}
	}
}

func TestLoad_PasswordFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(" p@ss word \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	withFiles := strings.NewReplacer("user: rowtide", "user: rowtide, password_file: "+secret, `["redis:6379"]`, `["redis:6379"], password_file: `+secret).Replace(minimal)
	c := load(t, withFiles)
	if c.Source.Password != " p@ss word " || c.Redis.Password != " p@ss word " {
		t.Errorf("passwords %q %q, want the file's without its line end", c.Source.Password, c.Redis.Password)
	}
	t.Setenv("ROWTIDE_SOURCE_PASSWORD", "direct")
	if c := load(t, withFiles); c.Source.Password != "direct" {
		t.Errorf("password %q, want the one that is given directly", c.Source.Password)
	}
	_, err := config.Load(write(t, strings.ReplaceAll(minimal, "user: rowtide", "user: rowtide, password_file: /nowhere/secret")))
	if err == nil || !strings.Contains(err.Error(), "source.password_file: open /nowhere/secret") {
		// ROWTIDE_SOURCE_PASSWORD is set: the file is not even opened.
		if err != nil {
			t.Errorf("err=%v", err)
		}
	}
	_, err = config.Load(write(t, strings.ReplaceAll(minimal, `["redis:6379"]`, `["redis:6379"], password_file: /nowhere/secret`)))
	if err == nil || !strings.Contains(err.Error(), "redis.password_file: open /nowhere/secret") {
		t.Errorf("err=%v, want it to name the key and the file", err)
	}
}

func TestLoad_Messages(t *testing.T) {
	swap := func(old, with string) string { return strings.Replace(minimal, old, with, 1) }
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"top-level key", minimal + "\nsorce: {a: 1}\n", []string{`sorce is not a known key; did you mean "source"?`}},
		{"nested key", swap("user:", "usr:"), []string{`source.usr is not a known key; did you mean "user"?`}},
		{"key in a module", minimal + "    ttll: 1h\n", []string{`ttll is not a known key; did you mean "ttl"?`}},
		{"far from any key", minimal + "\nzookeeper_quorum: x\n", []string{"zookeeper_quorum is not a known key; remove it, or see docs/configuration.md"}},
		{"one letter", minimal + "\nx: 1\n", []string{"x is not a known key; remove it, or see docs/configuration.md"}},
		{"two misspelt keys", minimal + "\nlogg: {a: 1}\nhttpp: {a: 1}\n", []string{`logg is not a known key; did you mean "log"?`, `httpp is not a known key; did you mean "http"?`}},
		{"word for a number", swap("server_id: 7", "server_id: seven"), []string{"source.server_id", "want a whole number"}},
		{"word for a duration", swap("user: rowtide", "user: rowtide, heartbeat: often"), []string{"source.heartbeat", "want a duration"}},
		{"duration without a unit", minimal + "    ttl: 60\n", []string{"modules[0].ttl", "60: want a duration with its unit, such as 60s"}},
		{"negative server id", swap("server_id: 7", "server_id: -1"), []string{"source.server_id", "-1 is out of range"}},
		{"server id too large", swap("server_id: 7", "server_id: 4294967296"), []string{"source.server_id", "4294967296 is out of range"}},
		{"module version too large", minimal + "    version: 70000\n", []string{"modules[0].version", "70000 is out of range"}},
		{"list for a word", swap("user: rowtide", "user: [a, b]"), []string{"source.user"}},
		{"modules as a map", strings.Split(minimal, "modules:")[0] + "modules:\n  event: {key: \"{id}\"}\n", []string{"modules"}},
		{"not YAML", "source: [", []string{"not readable as YAML"}},
		{"tab", "source:\n\taddr: x\n", []string{"not readable as YAML"}},
		{"key twice", minimal + "\nname: a\nname: b\n", []string{"name is given twice, first in line 10; keep one"}},
		{"redis", swap(`["redis:6379"]`, `["redis:6379"], cluster: true, master: m, db: 3, tls: maybe, prefix: "a{b}"`), []string{
			"redis.cluster and redis.master exclude each other", "redis.db 3: a cluster has only database 0", `redis.tls "maybe": want off, on or skip-verify`, `redis.prefix "a{b}": no spaces or braces`,
		}},
		{"checkpoint", minimal + "\ncheckpoint: {store: etcd}\n", []string{`checkpoint.store "etcd": want redis or file`}},
		{"checkpoint path", minimal + "\ncheckpoint: {store: file}\n", []string{"checkpoint.path is missing: name the file that keeps the position"}},
		{"log", minimal + "\nlog: {level: loud, format: xml}\n", []string{`log.level "loud": want debug, info, warn or error`, `log.format "xml": want text or json`}},
		{"kafka", swap(`["kafka:9092"]`, `["kafka:9092"], partitions: -1, heartbeat: 5s`), []string{"kafka.partitions -1: want at least 1", "kafka.heartbeat 5s: want 10ms to 1s"}},
		{"module", minimal + "    on_error: panic\n", []string{`modules[0] (event).on_error "panic": want keep or optional`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.text)
			c, err := config.Load(path)
			var ce *config.Error
			if !errors.As(err, &ce) || ce.File != path || !strings.Contains(err.Error(), path+":") {
				t.Fatalf("err=%v, want a *config.Error for %s (got %+v)", err, path, c)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("message:\n%v\nwants: %s", err, w)
				}
			}
		})
	}
}

func TestLoad_AllFaultsAtOnce(t *testing.T) {
	_, err := config.Load(write(t, "log: {level: x}\n"))
	want := []string{
		"has 7 faults:", "source.addr is missing", "source.user is missing", "source.server_id is missing", "redis.addrs is missing",
		"kafka.brokers is missing", `log.level "x"`, "modules is empty",
	}
	at := 0
	for _, w := range want {
		i := strings.Index(err.Error()[at:], w)
		if i < 0 {
			t.Fatalf("message lacks %q, or has it in another place:\n%v", w, err)
		}
		at += i
	}
}

func TestLoad_OneFaultIsOneLine(t *testing.T) {
	path := write(t, strings.Replace(minimal, "server_id: 7", "server_id: 0", 1))
	_, err := config.Load(path)
	want := path + ":2: source.server_id is missing: choose a number that no server or replica of this cluster uses"
	if err == nil || err.Error() != want {
		t.Errorf("err=%v\nwant %s", err, want)
	}
}

func TestLoad_MissingFile(t *testing.T) {
	_, err := config.Load("/nowhere/rowtide.yaml")
	if want := "/nowhere/rowtide.yaml: no such file; README.md shows a first one"; err == nil || err.Error() != want {
		t.Errorf("err=%v, want %s", err, want)
	}
	if _, err := config.Load(t.TempDir()); err == nil {
		t.Error("a folder was read as a file")
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		minimal, "", "null", "source:", "source: null\nredis: []", "modules: {a: 1}", "modules: [null]", "modules: [[]]", "a: &a [*a]", "1: 2", "? x", "\x00",
		"modules:\n  - from:\n    rebuild: {one: \":keys\", many: [null]}\n    watch: [null]", "redis: {addrs: a,b}", "kafka: {\"-\": x}", "source: {a.b: 1}", "<<: {a: 1}", "---\n---",
		"&a modules: [&b {<<: *b}, *b]", "? [a]\n: b", "a: !!binary x", "source: {addr: !x y}", "\ufeffname: a", "modules:\r\n- ~\r\n", "*a : 1", "redis: &r {<<: [*r, {db: 1}]}",
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "rowtide.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path)
		var ce *config.Error
		switch {
		case err == nil && len(c.Modules) == 0:
			t.Error("a file without a module was taken")
		case err != nil && (!errors.As(err, &ce) || strings.HasSuffix(strings.TrimSpace(err.Error()), ":")):
			t.Errorf("err=%q, want a *config.Error that says something", err)
		}
	})
}
