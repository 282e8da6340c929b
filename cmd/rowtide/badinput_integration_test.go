//go:build integration

package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowtide/rowtide/internal/testenv"
)

// good is a config that works, as parts that a test can spoil.
type good struct {
	source, redis, kafka, modules, more string
}

func goodConfig(t *testing.T, target testenv.SQLTarget, schema string) good {
	return good{
		source:  fmt.Sprintf(`{addr: "%s", user: root, server_id: 77, start_at: latest}`, target.Addr),
		redis:   fmt.Sprintf(`{addrs: ["%s"], prefix: %s}`, testenv.Redis(t), testenv.UniqueName(t, "bad")),
		kafka:   fmt.Sprintf(`{brokers: ["%s"], topic: %s}`, strings.Join(testenv.Kafka(t), `","`), testenv.UniqueName(t, "bad")),
		modules: fmt.Sprintf(`[{name: thing, key: "{id}", from: {table: %s.thing, columns: [id, name]}}]`, schema),
	}
}

func (g good) write(t *testing.T) string {
	t.Helper()
	return writeConfig(t, "source: %s\nredis: %s\nkafka: %s\nmodules: %s\n%s", g.source, g.redis, g.kafka, g.modules, g.more)
}

// Every way to get the config or a server wrong ends with the documented exit
// code and a message that names the thing and the remedy, and has written
// nothing.
func TestRun_BadInputNamesTheThingAndTheRemedy(t *testing.T) {
	target := testenv.MariaDB(t)
	db := newDatabase(t, target, "bad")
	schema := db.schema
	limited := strings.ReplaceAll(schema, "_", "")[:20]
	t.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP USER "+limited) })
	db.exec("CREATE TABLE " + schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	db.exec("CREATE USER " + limited + " IDENTIFIED BY 'pw'")
	db.exec("GRANT SELECT ON " + schema + ".* TO " + limited)
	closed := testenv.FreeAddr(t)

	tests := []struct {
		name  string
		spoil func(*good)
		code  int
		want  []string // all of these, in what it prints
	}{
		{"missing key", func(g *good) { g.source = `{user: root, server_id: 77}` }, exitConfig, []string{":1: source.addr is missing", "host:port"}},
		{"misspelt key", func(g *good) { g.more = "kafak: {}" }, exitConfig, []string{":5: kafak is not a known key", `did you mean "kafka"`}},
		{"misspelt module key", func(g *good) { g.modules = strings.Replace(g.modules, "columns", "colums", 1) }, exitConfig, []string{":4: modules[0].from.colums", `did you mean "columns"`}},
		{"no modules", func(g *good) { g.modules = "[]" }, exitConfig, []string{":4: modules is empty"}},
		{"not YAML", func(g *good) { g.more = "a: [" }, exitConfig, []string{":5: not readable as YAML", "a bracket or quote that is not closed"}},
		{"server away", func(g *good) { g.source = fmt.Sprintf(`{addr: "%s", user: root, server_id: 77}`, closed) }, exitRuntime, []string{closed, "source.addr", "is the server up"}},
		{"redis away", func(g *good) { g.redis = fmt.Sprintf(`{addrs: ["%s"]}`, closed) }, exitRuntime, []string{closed, "redis.addrs", "is it up", ".yaml:2: cannot talk"}},
		{"kafka away", func(g *good) { g.kafka = fmt.Sprintf(`{brokers: ["%s"]}`, closed) }, exitRuntime, []string{closed, "kafka.brokers", "is it up"}},
		{"wrong password", func(g *good) { g.source = strings.Replace(g.source, "user: root", "user: root, password: wrong", 1) }, exitRuntime, []string{`refuses user "root"`, "source.password"}},
		{"wrong redis password", func(g *good) {
			g.redis = strings.Replace(g.redis, "prefix:", "password: wrong, username: nobody, prefix:", 1)
		}, exitRuntime, []string{`refuses user "nobody"`, "redis.password"}},
		{"no grant to replicate", func(g *good) {
			g.source = strings.Replace(g.source, "user: root", "user: "+limited+", password: pw", 1)
		}, exitRuntime, []string{"may not replicate", "GRANT REPLICATION SLAVE"}},
		{"server_id of the server", func(g *good) {
			g.source = strings.Replace(g.source, "server_id: 77", "server_id: "+serverID(t, db.DB), 1)
		}, exitRuntime, []string{".yaml:1: source.server_id", "choose another"}},
		{"unknown table", func(g *good) { g.modules = strings.Replace(g.modules, ".thing,", ".nothing,", 1) }, exitRuntime, []string{".yaml:4: module thing: ", schema + ".nothing does not exist", "check the name"}},
		{"unknown column", func(g *good) { g.modules = strings.Replace(g.modules, "[id, name]", "[id, titel]", 1) }, exitRuntime, []string{".yaml:4: module thing: ", `no column "titel"`, "it has id, name"}},
		{"unknown key column", func(g *good) { g.modules = strings.Replace(g.modules, "{id}", "{idd}", 1) }, exitRuntime, []string{`no column "idd"`}},
		{"filter that does not type-check", func(g *good) {
			g.modules = strings.Replace(g.modules, "columns: [id, name]", "where: name > 3", 1)
		}, exitRuntime, []string{".yaml:4: module thing: from.where", "does not type-check", "mismatched types string and int"}},
		{"filter that is no expression", func(g *good) {
			g.modules = strings.Replace(g.modules, "columns: [id, name]", "where: name >", 1)
		}, exitConfig, []string{".yaml:4: modules[0] (thing).from.where", "unexpected token"}},
		{"two modules with one key space", func(g *good) {
			g.modules = "[" + strings.Trim(g.modules, "[]") + ", " + strings.Trim(g.modules, "[]") + "]"
		}, exitConfig, []string{"the name is used twice", "cannot share a key space"}},
		{"rebuild query without :keys", func(g *good) {
			g.modules = fmt.Sprintf(`[{name: page, key: "{id}", rebuild: {one: "SELECT id FROM %[1]s.thing"}, watch: [{table: %[1]s.thing, key: "{id}"}]}]`, schema)
		}, exitConfig, []string{".yaml:4: modules[0] (page).rebuild.one", "must contain :keys once"}},
		{"broken rebuild query", func(g *good) {
			g.modules = fmt.Sprintf(`[{name: page, key: "{id}", rebuild: {one: "SELECT id, title FROM %[1]s.thing WHERE id IN (:keys)"}, watch: [{table: %[1]s.thing, key: "{id}"}]}]`, schema)
		}, exitRuntime, []string{".yaml:4: module page: rebuild.one", "title"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := goodConfig(t, target, schema)
			tt.spoil(&g)
			path := g.write(t)
			res := rowtideCommand(t, nil, "run", "-c", path)
			if res.code != tt.code {
				t.Errorf("exit code %d, want %d; it said:\n%s", res.code, tt.code, res.stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(res.stderr, want) {
					t.Errorf("message lacks %q:\n%s", want, res.stderr)
				}
			}
			checkNothingWritten(t, g)
		})
	}
}

func serverID(t *testing.T, db *sql.DB) string {
	t.Helper()
	var id string
	if err := db.QueryRowContext(t.Context(), "SELECT @@server_id").Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// checkNothingWritten looks for keys under the config's prefix, and for its
// topic.
func checkNothingWritten(t *testing.T, g good) {
	t.Helper()
	_, prefix, ok := strings.Cut(g.redis, "prefix: ")
	if !ok {
		return // the config names a Redis that is not there
	}
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	defer rdb.Close()
	keys, err := rdb.Keys(t.Context(), strings.TrimRight(prefix, "}")+"*").Result()
	if err != nil || len(keys) > 0 {
		t.Errorf("keys %v were written before preflight passed, error %v", keys, err)
	}
	_, topic, ok := strings.Cut(g.kafka, "topic: ")
	if !ok {
		return
	}
	admin, err := sarama.NewClusterAdmin(testenv.Kafka(t), sarama.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	topics, err := admin.ListTopics()
	if _, made := topics[strings.TrimRight(topic, "}")]; err != nil || made {
		t.Errorf("the topic was made before preflight passed, error %v", err)
	}
}

// Servers whose log cannot be used as it is set up.
func TestRun_UnusableLogNamesTheSettingAndTheStatement(t *testing.T) {
	tests := []struct {
		name  string
		flags []string
		want  []string
	}{
		{"binlog off", []string{"--skip-log-bin"}, []string{"log_bin is OFF", "--log-bin"}},
		{"not ROW", []string{"--binlog-format=MIXED"}, []string{`binlog_format is "MIXED"`, "SET GLOBAL binlog_format='ROW'"}},
		{"minimal image", []string{"--binlog-row-image=MINIMAL"}, []string{`binlog_row_image is "MINIMAL"`, "SET GLOBAL binlog_row_image='FULL'"}},
		{"no column names", []string{"--binlog-row-metadata=MINIMAL"}, []string{`binlog_row_metadata is "MINIMAL"`, "SET GLOBAL binlog_row_metadata='FULL'"}},
	}
	starts := map[string]func(context.Context, testenv.Options) (*testenv.SQLServer, error){
		testenv.FlavorMariaDB: testenv.StartMariaDB, testenv.FlavorMySQL: testenv.StartMySQL,
	}
	for _, target := range testenv.SQLServers(t) {
		for _, tt := range tests {
			t.Run(target.Flavor+"/"+tt.name, func(t *testing.T) {
				srv, err := starts[target.Flavor](t.Context(), testenv.Options{Flags: tt.flags})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = srv.Stop(context.Background()) })
				db := newDatabase(t, srv.Target(), "s")
				db.exec("CREATE TABLE " + db.schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
				g := goodConfig(t, srv.Target(), db.schema)
				res := rowtideCommand(t, nil, "run", "-c", g.write(t))
				if res.code != exitRuntime {
					t.Errorf("exit code %d, want %d:\n%s", res.code, exitRuntime, res.stderr)
				}
				for _, want := range tt.want {
					if !strings.Contains(res.stderr, want) {
						t.Errorf("message lacks %q:\n%s", want, res.stderr)
					}
				}
				checkNothingWritten(t, g)
			})
		}
	}
}

// A broker that refuses to create the topic.
func TestRun_TopicThatCannotBeCreated(t *testing.T) {
	k, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	k.Cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
			st := kmsg.NewCreateTopicsResponseTopic()
			st.Topic, st.ErrorCode = topic.Topic, 29 // TOPIC_AUTHORIZATION_FAILED
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	target := testenv.MariaDB(t)
	db := newDatabase(t, target, "bad")
	db.exec("CREATE TABLE " + db.schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	g := goodConfig(t, target, db.schema)
	g.kafka = fmt.Sprintf(`{brokers: ["%s"], topic: forbidden}`, strings.Join(k.Brokers(), `","`))
	res := rowtideCommand(t, nil, "run", "-c", g.write(t))
	if res.code != exitRuntime || !strings.Contains(res.stderr, "create topic forbidden") || !strings.Contains(res.stderr, "grant CREATE") {
		t.Errorf("exit code %d, message:\n%s", res.code, res.stderr)
	}
}

// Commands that are not about a config.
func TestCommands_UsageAndStatus(t *testing.T) {
	addr := testenv.FreeAddr(t)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"run", "-c", "nowhere.yaml"}, exitConfig, "nowhere.yaml: no such file"},
		{[]string{"run", "--confg", "x"}, exitConfig, "unknown flag: --confg"},
		{[]string{"status", "--addr", addr}, exitRuntime, "no daemon answers at " + addr},
		{[]string{"version"}, exitClean, ""},
		{[]string{"stock", "load", "E", "A1"}, exitConfig, "want SKU=UNITS"},
		{[]string{"nonsense"}, exitConfig, "unknown command"},
	} {
		res := rowtideCommand(t, nil, tt.args...)
		if res.code != tt.code || !strings.Contains(res.stderr, tt.want) {
			t.Errorf("rowtide %v: exit code %d, want %d; message %q, want it to hold %q", tt.args, res.code, tt.code, res.stderr, tt.want)
		}
	}
}
