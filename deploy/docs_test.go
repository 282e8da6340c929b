package deploy_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/stockapi"
)

// key is one setting of the daemon's config.
type key struct {
	path string // such as "source.addr" or "modules[].from.table"
	kind string
	def  string // as docs/configuration.md writes it
	leaf bool
}

// keys lists every setting, parents before children.
func keys() []key {
	c := config.Config{Modules: []aggregator.ModuleConfig{{
		From:    &aggregator.FromConfig{Fields: []aggregator.FieldConfig{{}}},
		Rebuild: &aggregator.RebuildConfig{Many: []aggregator.ManyConfig{{}}},
		Watch:   []aggregator.WatchConfig{{}},
	}}}.WithDefaults()
	c.HTTP.Listen = config.DefaultListen // set by Load, since empty means off
	return keysOf(reflect.ValueOf(c), "")
}

// stockKeys lists every setting of the stock API's config.
func stockKeys() []key {
	c := config.Stock{Stock: stockapi.Config{Limits: []stockapi.LimitRule{{}}}}.WithDefaults()
	c.HTTP.Listen = config.DefaultStockListen
	return keysOf(reflect.ValueOf(c), "")
}

func keysOf(v reflect.Value, prefix string) []key {
	var out []key
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("mapstructure")
		if tag == "-" {
			continue
		}
		if tag == ",squash" {
			out = append(out, keysOf(v.Field(i), prefix)...)
			continue
		}
		f, path := v.Field(i), prefix+tag
		for f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		switch {
		case f.Kind() == reflect.Struct:
			out = append(append(out, key{path: path, kind: "section"}), keysOf(f, path+".")...)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
			out = append(append(out, key{path: path, kind: "list"}), keysOf(f.Index(0), path+"[].")...)
		default:
			out = append(out, key{path: path, kind: kindOf(f), def: written(f), leaf: true})
		}
	}
	return out
}

func kindOf(f reflect.Value) string {
	switch {
	case f.Type() == reflect.TypeFor[time.Duration]():
		return "duration"
	case f.Kind() == reflect.Slice:
		return "list of strings"
	case f.CanInt(), f.CanUint():
		return "integer"
	case f.CanFloat():
		return "number"
	}
	return f.Kind().String()
}

// written is a default as the documents write it; "" is none.
func written(f reflect.Value) string {
	if f.IsZero() {
		if f.Kind() == reflect.Bool {
			return "false"
		}
		return ""
	}
	if d, ok := reflect.TypeAssert[time.Duration](f); ok {
		// 24h0m0s is 24h.
		text := d.String()
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(text, zero) {
				text = text[:len(text)-2]
			}
		}
		return text
	}
	return fmt.Sprint(f.Interface())
}

// environment lists the variables that stand for keys, as config.Load spells
// them.
func environment(keys []key) []string {
	var out []string
	for _, k := range keys {
		if k.leaf && !strings.Contains(k.path, "[]") {
			out = append(out, "ROWTIDE_"+strings.ToUpper(strings.ReplaceAll(k.path, ".", "_")))
		}
	}
	return out
}

func tablesOf(modules []aggregator.ModuleConfig) []string {
	compiled, err := aggregator.Compile(modules)
	if err != nil {
		return nil // Load has complained already
	}
	return aggregator.Tables(compiled)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rows reads the rows of all tables of a document by their first cell, which is
// a name in back-quotes.
func rows(doc string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(doc) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		out[strings.Trim(cells[0], "`")] = cells[1:]
	}
	return out
}

func TestConfigurationDoc_HasEveryKeyItsTypeAndDefault(t *testing.T) {
	documented := rows(read(t, "docs/configuration.md"))
	all := keys()
	for _, k := range stockKeys() {
		// The rest has the daemon's names and meanings.
		if strings.HasPrefix(k.path, "db.") || strings.HasPrefix(k.path, "stock.") {
			all = append(all, k)
		}
	}
	for _, k := range all {
		cells, ok := documented[k.path]
		delete(documented, k.path)
		if !k.leaf {
			continue
		}
		if !ok || len(cells) != 3 {
			t.Errorf("docs/configuration.md has no row | `%s` | type | default | meaning |", k.path)
			continue
		}
		if oneOf := k.kind == "string" && strings.HasPrefix(cells[0], "one of `"); cells[0] != k.kind && !oneOf {
			t.Errorf("%s: documented as %s, is %s", k.path, cells[0], k.kind)
		}
		want := []string{"`" + k.def + "`"}
		if k.def == "" {
			want = []string{"required", "none"}
		}
		if !slices.Contains(want, cells[1]) {
			t.Errorf("%s: documented default %s, want %s", k.path, cells[1], strings.Join(want, " or "))
		}
		if cells[2] == "" {
			t.Errorf("%s: the meaning is missing", k.path)
		}
	}
	for path := range documented {
		if strings.ContainsAny(path, ".[") {
			t.Errorf("docs/configuration.md explains %s, which is no key", path)
		}
	}
}

func TestExampleConfig_HasEveryKeyWithItsDefaultAndAComment(t *testing.T) {
	const path = "rowtide.example.yaml"
	got, err := config.Load(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	// What has no default is taken over; all else must be what an empty file has.
	var want config.Config
	want.Source.Addr, want.Source.User, want.Source.ServerID = got.Source.Addr, got.Source.User, got.Source.ServerID
	want.Source.Feed.Brokers, want.Source.Feed.Topics, want.Source.Feed.Types = got.Source.Feed.Brokers, got.Source.Feed.Topics, got.Source.Feed.Types
	want.Redis.Addrs, want.Kafka.Brokers = got.Redis.Addrs, got.Kafka.Brokers
	for _, m := range got.Modules {
		want.Modules = append(want.Modules, aggregator.ModuleConfig{Name: m.Name, Key: m.Key, From: m.From, Rebuild: m.Rebuild, Watch: m.Watch})
	}
	want.HTTP.Listen = config.DefaultListen
	if want = want.WithDefaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("%s differs from the defaults:\ngot  %+v\nwant %+v", path, got, want)
	}

	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(read(t, path)), &doc); err != nil {
		t.Fatal(err)
	}
	present := map[string]bool{}
	walk(t, doc.Content[0], "", present, map[string]bool{})
	for _, k := range keys() {
		if !present[k.path] {
			t.Errorf("%s lacks %s", path, k.path)
		}
	}
}

// walk notes every key of a YAML document; each must have a comment where it
// stands first.
func walk(t *testing.T, n *yaml.Node, prefix string, present, commented map[string]bool) {
	t.Helper()
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		path := prefix + k.Value
		if !present[path] && k.HeadComment == "" && v.LineComment == "" && k.LineComment == "" && n.HeadComment == "" {
			t.Errorf("line %d: %s has no comment", k.Line, path)
		}
		present[path] = true
		walk(t, v, path+".", present, commented)
	}
	for _, item := range n.Content {
		if n.Kind == yaml.SequenceNode && item.Kind == yaml.MappingNode {
			walk(t, item, strings.TrimSuffix(prefix, ".")+"[].", present, commented)
		}
	}
}

func TestMetricsDoc_HasEveryMetricItsTypeAndLabels(t *testing.T) {
	documented := rows(read(t, "docs/metrics.md"))
	known := registered(t)
	for _, name := range slices.Sorted(maps.Keys(known)) {
		m, cells := known[name], documented[name]
		delete(documented, name)
		if len(cells) != 3 || cells[2] == "" {
			t.Errorf("docs/metrics.md has no row | `%s` | type | labels | meaning |", name)
			continue
		}
		labels := "none"
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		if cells[0] != m.kind || cells[1] != labels {
			t.Errorf("%s: documented as %s with labels %s, is a %s with %s", name, cells[0], cells[1], m.kind, labels)
		}
	}
	for name := range documented {
		if strings.HasPrefix(name, "rowtide_") {
			t.Errorf("docs/metrics.md explains %s, which is not registered", name)
		}
	}
}

// documents are the pages that speak of the code.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "examples/*/README.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			path, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			out[path] = read(t, path)
		}
	}
	return out
}

func TestDocs_NameOnlyTestsThatExist(t *testing.T) {
	exist := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
			exist[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Example|Benchmark)[A-Z]\\w+)`")
	for path, text := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !exist[m[1]] {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	}
}

func TestArchitecture_EveryInvariantNamesATest(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	_, section, ok := strings.Cut(text, "\n## Invariants\n")
	if !ok {
		t.Fatal("there is no section Invariants")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	n := 0
	for line := range strings.Lines(section) {
		if !regexp.MustCompile(`^\| I\d+ `).MatchString(line) {
			continue
		}
		n++
		if !regexp.MustCompile("`(Test|Fuzz)[A-Z]").MatchString(line) && !strings.Contains(line, "planned") {
			t.Errorf("no test is named: %s", line)
		}
	}
	if n < 5 {
		t.Errorf("%d invariants found", n)
	}
}

func TestDocs_LinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), target)); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

func TestADRs_AreListedAndHaveTheThreeParts(t *testing.T) {
	index := read(t, "docs/adr/README.md")
	files, err := filepath.Glob(filepath.Join(root, "docs/adr/0*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files=%v err=%v", files, err)
	}
	for _, f := range files {
		name := filepath.Base(f)
		if !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/adr/README.md does not list %s", name)
		}
		text := read(t, "docs/adr/"+name)
		for _, part := range []string{"\n## Context\n", "\n## Decision\n", "\n## Consequences\n"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks%s", name, strings.ReplaceAll(part, "\n", " "))
			}
		}
	}
}

// subcommands are the first words of the Use lines of cmd/rowtide.
func subcommands(r *tree) []string {
	files, err := filepath.Glob(filepath.Join(root, "cmd/rowtide/*.go"))
	if err != nil || len(files) == 0 {
		r.t.Fatalf("files=%v err=%v", files, err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`Use:\s+"([a-z]+)`).FindAllStringSubmatch(string(b), -1) {
			out = append(out, m[1])
		}
	}
	return out
}

func TestDocs_NameOnlySubcommandsThatExist(t *testing.T) {
	known := subcommands(&tree{t: t})
	used := regexp.MustCompile("(?m)(?:`|^|\\$ |exec [a-z]+ /)rowtide ([a-z]+)(?:[ `]|$)")
	for path, text := range documents(t) {
		for _, m := range used.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: there is no `rowtide %s`", path, m[1])
			}
		}
	}
}

func TestDocs_ModulesOfTheReadmeAreValid(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(modules:.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("README.md shows no modules")
	}
	const head = "source: {addr: 'db:3306', user: u, server_id: 1}\nredis: {addrs: ['r:6379']}\nkafka: {brokers: ['k:9092']}\n"
	for _, b := range blocks {
		path := filepath.Join(t.TempDir(), "rowtide.yaml")
		if err := os.WriteFile(path, []byte(head+b[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(path); err != nil {
			t.Error(err)
		}
	}
}

// TestDocs_WebNodeOfTheReadmeCompiles builds the snippet against localsync as it
// is. The overlay gives it a place in this module.
func TestDocs_WebNodeOfTheReadmeCompiles(t *testing.T) {
	m := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(read(t, "README.md"))
	if m == nil {
		t.Fatal("README.md shows no Go")
	}
	source := `package main

import (
	"context"
	"database/sql"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/localsync"
)

type Event struct{}

func queryEvents(context.Context, *sql.DB, []int64) (map[int64]Event, error) { return nil, nil }

func main() {
	events, err := open(context.Background(), nil)
	if err != nil {
		return
	}
	_, _ = events.Get(context.Background(), 42)
}

` + m[1]
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(filepath.Join(root, "examples", "readme", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace": {%q: %q}}`, here, file), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", filepath.Join(dir, "out"), "./examples/readme")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
