package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/config"
)

// lines are the faults of an error, one each, with the file's name alone.
func lines(t *testing.T, path string, err error) []string {
	t.Helper()
	if _, ok := errors.AsType[*config.Error](err); !ok {
		t.Fatalf("err=%v, want a *config.Error", err)
	}
	text := strings.ReplaceAll(err.Error(), path, filepath.Base(path))
	if head, rest, ok := strings.Cut(text, " faults:\n"); ok && strings.HasPrefix(head, "config ") {
		text = rest
	}
	return strings.Split(text, "\n")
}

func TestLoad_EveryFaultHasItsFileLineAndKey(t *testing.T) {
	const path = "testdata/faults.yaml"
	_, err := config.Load(path)
	want, readErr := os.ReadFile("testdata/faults.txt")
	if readErr != nil {
		t.Fatal(readErr)
	}
	if got := strings.Join(lines(t, path, err), "\n") + "\n"; got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if head, want := strings.Split(err.Error(), "\n")[0], "config "+path+" has 10 faults:"; head != want {
		t.Errorf("head %q, want %q", head, want)
	}
}

// head is a config that lacks modules, five lines long.
const head = `source:
  {addr: "db:3306", user: rowtide, server_id: 7}
redis: {addrs: ["redis:6379"]}
kafka: {brokers: ["kafka:9092"]}
modules:
`

func TestLoad_LineOfAFault(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string // all faults
	}{
		{"empty file", "", []string{
			"rowtide.yaml:1: source.addr is missing: give the server's host:port",
			"rowtide.yaml:1: source.user is missing: name the MySQL or MariaDB account to replicate with",
			"rowtide.yaml:1: source.server_id is missing: choose a number that no server or replica of this cluster uses",
			"rowtide.yaml:1: redis.addrs is missing: list at least one host:port",
			"rowtide.yaml:1: kafka.brokers is missing: list at least one host:port",
			"rowtide.yaml:1: modules is empty: describe at least one module",
		}},
		{"not a mapping", "\n- a\n", []string{"rowtide.yaml:2: want keys such as source: and modules:, not a list"}},
		{"second document", head + "  - {name: a, key: \"{id}\", from: {table: s.a}}\n---\na: 1\n", []string{"rowtide.yaml:7: a second document begins here; keep one"}},
		{"misspelt beside the right one", strings.Replace(head, "db:3306\"", "db\", adr: x", 1) + "  - {name: a, key: \"{id}\", from: {table: s.a}}\n---\n", []string{
			`rowtide.yaml:2: source.adr is not a known key; did you mean "addr"?`,
			`rowtide.yaml:2: source.addr "db": want host:port`,
			"rowtide.yaml:7: a second document begins here; keep one",
		}},
		{"missing key, by its section", strings.Replace(head, "user: rowtide, ", "", 1) + "  - {name: a, key: \"{id}\", from: {table: s.a}}\n", []string{
			"rowtide.yaml:1: source.user is missing: name the MySQL or MariaDB account to replicate with",
		}},
		{"flow style over lines", head + "  - {name: a, key: \"{id}\",\n     from: {table: s.a,\n            colums: [x]}}\n", []string{
			`rowtide.yaml:8: modules[0].from.colums is not a known key; did you mean "columns"?`,
		}},
		{"CRLF", strings.ReplaceAll(head+"  - name: a\n    key: \"{id}\"\n    from: {table: a}\n", "\n", "\r\n"), []string{
			`rowtide.yaml:8: modules[0] (a).from.table "a": want schema.table`,
		}},
		{"after a string of many lines", head + "  - name: a\n    key: \"{id}\"\n    rebuild:\n      one: >-\n        SELECT id\n\n        FROM s.a WHERE id IN (:keys)\n    watch: [{table: s.a, key: \"{id}\"}]\n    on_error: no\n", []string{
			`rowtide.yaml:14: modules[0] (a).on_error "no": want keep or optional`,
		}},
		{"alias", head + "  - name: a\n    key: \"{id}\"\n    from: {table: s.a}\n    empty: &times {ttl: 5}\n  - name: b\n    key: \"{id}\"\n    from: {table: s.b}\n    empty: *times\n", []string{
			"rowtide.yaml:9: modules[0].empty.ttl: 5: want a duration with its unit, such as 5s",
			"rowtide.yaml:9: modules[1].empty.ttl: 5: want a duration with its unit, such as 5s",
		}},
		{"merge key", head + "  - &a\n    name: a\n    key: \"{id}\"\n    on_error: no\n    from: {table: s.a}\n  - <<: *a\n    name: b\n", []string{
			`rowtide.yaml:9: modules[0] (a).on_error "no": want keep or optional`,
			`rowtide.yaml:9: modules[1] (b).on_error "no": want keep or optional`,
		}},
		{"merge of nothing", head + "  - <<: 5\n    name: a\n    key: \"{id}\"\n    from: {table: s.a}\n", []string{
			"rowtide.yaml:6: modules[0]: << wants an alias of other keys, such as <<: *defaults",
		}},
		{"merge of itself", head + "  - &a\n    <<: *a\n    name: a\n    key: \"{id}\"\n    from: {table: s.a}\n", []string{
			"rowtide.yaml:7: modules[0]: << wants an alias of other keys, such as <<: *defaults",
		}},
		{"key twice", head + "  - name: a\n    key: \"{id}\"\n    from:\n      table: s.a\n      table: s.b\n", []string{
			"rowtide.yaml:10: modules[0].from.table is given twice, first in line 9; keep one",
		}},
		{"section twice", head + "  - {name: a, key: \"{id}\", from: {table: s.a}}\nredis: {db: 1}\n", []string{"rowtide.yaml:7: redis is given twice, first in line 3; keep one"}},
		{"empty item", head + "  -\n  - {name: a, key: \"{id}\", from: {table: s.a}}\n", []string{"rowtide.yaml:6: modules[0] is empty; fill it in or remove it"}},
		{"key that is a list", head + "  - {name: a, key: \"{id}\", from: {table: s.a}}\n? [a, b]\n: c\n", []string{"rowtide.yaml:7: a key must be a word, not a list"}},
		{"capitals", head + "  - {Name: a, key: \"{id}\", from: {table: s.a}}\n", []string{`rowtide.yaml:6: modules[0].Name is not a known key; did you mean "name"?`}},
		{"unknown tag", strings.Replace(head, "user: rowtide", "user: !vault rowtide", 1) + "  - {name: a, key: \"{id}\", from: {table: s.a}}\n", []string{
			"rowtide.yaml:2: source.user: the tag !vault has no meaning here; give the value itself",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.text)
			_, err := config.Load(path)
			if got, want := strings.Join(lines(t, path, err), "\n"), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestLoad_LineOfASyntaxError(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"tab", "a: 1\nsource:\n\taddr: x\n", "rowtide.yaml:3: not readable as YAML: found character that cannot start any token; indent with spaces, not with tabs"},
		{"tab in a first line", "\ta: 1\n", "rowtide.yaml:1: not readable as YAML: found character that cannot start any token; indent with spaces, not with tabs"},
		{"tab, CRLF", "a: 1\r\n\tb: 2\r\n", "rowtide.yaml:2: not readable as YAML: found a tab character that violates indentation; indent with spaces, not with tabs"},
		{"open bracket", "source: [", "rowtide.yaml:1: not readable as YAML: did not find expected node content; look for a bracket or quote that is not closed, or a wrong indentation, at or above this line"},
		{"indentation", "a:\n  - b\n c: 1\n", "rowtide.yaml:3: not readable as YAML: did not find expected key; look for a bracket or quote that is not closed, or a wrong indentation, at or above this line"},
		{"anchor", "a: 1\nb: *x\n", "rowtide.yaml:2: not readable as YAML: unknown anchor 'x' referenced; define it with &x above its use"},
		{"colon", "x: 1\na: b: c\n", `rowtide.yaml:2: not readable as YAML: mapping values are not allowed in this context; quote a value that contains ": "`},
		{"not UTF-8", "a: 1\nb: \xff\n", "rowtide.yaml:2: not readable as YAML: invalid leading UTF-8 octet; save the file as UTF-8"},
		{"control characters", "a: 1\nb: \x01\n", "rowtide.yaml:2: not readable as YAML: control characters are not allowed; remove them"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.text)
			_, err := config.Load(path)
			if got := strings.Join(lines(t, path, err), "\n"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLoad_TextStaysAsItStands(t *testing.T) {
	for _, text := range []string{"0123", "1e3", "0x1F", "1_000", "true", "no", "2026-11-22", "1.50", ".5", "12345678901234567890123", "+7"} {
		c := load(t, strings.Replace(minimal, "user: rowtide", "user: rowtide, password: "+text, 1))
		if c.Source.Password != text {
			t.Errorf("password: %s was read as %q", text, c.Source.Password)
		}
	}
	c := load(t, strings.Replace(minimal, "table: shop.event", "table: shop.event, columns: [1, 007, on]", 1))
	if got := strings.Join(c.Modules[0].From.Columns, " "); got != "1 007 on" {
		t.Errorf("columns %s", got)
	}
}

func TestLoad_MergeKeysAndAliases(t *testing.T) {
	c := load(t, head+`  - &base
    name: a
    key: "{id}"
    ttl: 1h
    from: {table: s.a}
    empty: &times {ttl: 7s}
  - <<: *base
    name: b
    ttl: 2h
    empty: {<<: [*times, {ttl: 9s, refresh: 3s}]}
`)
	a, b := c.Modules[0], c.Modules[1]
	if b.Name != "b" || b.TTL != 2*a.TTL || b.From == nil || b.From.Table != "s.a" || b.Empty.TTL != a.Empty.TTL || b.Empty.Refresh.Seconds() != 3 {
		t.Errorf("merged module %+v", b)
	}
}

func TestLoad_FaultOfAVariableNamesIt(t *testing.T) {
	t.Setenv("ROWTIDE_SOURCE_SERVER_ID", "seven")
	t.Setenv("ROWTIDE_SOURCE_ADDR", "db")
	t.Setenv("ROWTIDE_KAFKA_HEARTBEAT", "9s")
	t.Setenv("ROWTIDE_KAFKA_RETENTION", "60")
	path := write(t, strings.Replace(minimal, "name: event", "name: Event", 1))
	_, err := config.Load(path)
	want := []string{
		`rowtide.yaml:6: modules[0] (Event).name "Event": want lower-case letters, digits, _ and -, at most 63`,
		"ROWTIDE_KAFKA_HEARTBEAT: kafka.heartbeat 9s: want 10ms to 1s; nodes count as cut off after 3s",
		"ROWTIDE_KAFKA_RETENTION: 60: want a duration with its unit, such as 60s",
		`ROWTIDE_SOURCE_ADDR: source.addr "db": want host:port`,
		`ROWTIDE_SOURCE_SERVER_ID: "seven": want a whole number from 0 to 4294967295`,
	}
	if got := lines(t, path, err); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLoadStock_EveryFaultHasItsFileLineAndKey(t *testing.T) {
	path := write(t, `db: {addr: "db:3306", user: stock, name: shop}
redis:
  addrs: ["redis:6379"]
  prefix: "a b"
stock:
  cells: 3
  hold_ttl: 60
  kafka:
    partitions: -1
  limits:
    - {id: vip, per: [user, event], max: 4}
    - id: vip
      per: [event]
      max: 0
      macht: {sku: "["}
`)
	_, err := config.LoadStock(path)
	want := []string{
		`rowtide.yaml:4: redis.prefix "a b": no spaces or braces; braces would put all keys into one cluster slot`,
		`rowtide.yaml:4: redis.prefix "a b": use letters, digits, -, _ or .`,
		"rowtide.yaml:6: stock.cells must be 1 in this version, not 3",
		"rowtide.yaml:7: stock.hold_ttl: 60: want a duration with its unit, such as 60s",
		"rowtide.yaml:8: stock.kafka.brokers is missing: list at least one host:port",
		"rowtide.yaml:9: stock.kafka.partitions must be above 0, not -1",
		`rowtide.yaml:12: stock.limits[1] (vip) is there twice`,
		"rowtide.yaml:13: stock.limits[1] (vip).per must be [user, event] or [user, sku], not [event]",
		"rowtide.yaml:14: stock.limits[1] (vip).max must be between 1 and 1099511627776, not 0",
		`rowtide.yaml:15: stock.limits[1].macht is not a known key; did you mean "match"?`,
	}
	if got := lines(t, path, err); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLocate_FindsTheLineOfWhatAServerSays(t *testing.T) {
	path := write(t, `source: {addr: "db:3306", user: rowtide, server_id: 7}
redis:
  addrs: ["redis:6379"]
modules:
  - name: event
    key: "{id}:{region}"
    from:
      table: shop.event
      columns:
        - id
        - titel
  - name: page
    key: "{id}"
    rebuild:
      one: SELECT id, title FROM shop.event WHERE id IN (:keys)
      many:
        - {name: tiers, query: "SELECT x FROM y WHERE id IN (:keys)"}
    watch:
      - {table: shop.event, key: "{id}"}
      - {table: shop.tier, key: "{event}"}
      - table: shop.venue
        keys: SELECT id FROM shop.event WHERE venue_id = :vid
`)
	t.Setenv("ROWTIDE_KAFKA_BROKERS", "k:1")
	cause := errors.New("the source is not ready:")
	said := []struct{ line, want string }{
		{`module event: table shop.event has no column "titel"; it has id`, "11"},
		{`module event: table shop.event has no column "region"; it has id`, "6"},
		{`module event: table shop.event has no column "ghost"; it has id`, "8"},
		{`module event: table shop.event does not exist, or user "u" may not read it`, "8"},
		{`module page: rebuild.one: the server refuses the query: no`, "15"},
		{`module page: rebuild.many[0] (tiers): the server refuses the query: no`, "17"},
		{`module page: watch[2].keys: the server refuses the query: no`, "22"},
		{`module page: table shop.tier has no column "event"; it has id`, "20"},
		{`module page: table shop.venue has no column "vid"; it has id`, "22"},
		{`module page: something else`, "12"},
		{`module absent: table a.b does not exist`, ""},
		{`source.server_id 7 is the server's own: choose another`, "1"},
		{`cannot talk to redis at redis:6379 (redis.addrs); is it up and reachable from here?`, "3"},
		{`cannot talk to kafka at k:1 (kafka.brokers); is it up and reachable from here?`, "ROWTIDE_KAFKA_BROKERS"},
		{`log_bin is OFF: start the server with --log-bin`, ""},
	}
	errs := []error{cause}
	for _, s := range said {
		errs = append(errs, errors.New(s.line))
	}
	err := config.Locate(path, errors.Join(errs...))
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	got := strings.Split(err.Error(), "\n")
	for i, s := range said {
		want := s.line
		switch {
		case strings.HasPrefix(s.want, "ROWTIDE"):
			want = s.want + ": " + s.line
		case s.want != "":
			want = path + ":" + s.want + ": " + s.line
		}
		if got[i+1] != want {
			t.Errorf("got  %s\nwant %s", got[i+1], want)
		}
	}
	if config.Locate(path, nil) != nil {
		t.Error("no error became one")
	}
}
