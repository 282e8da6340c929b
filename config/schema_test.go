package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/rowtide/rowtide/docs"
)

func compiled(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.json") // which validates it against its draft
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parsed(t *testing.T, text []byte) any {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// configs are all files of the repository that the program reads, by what they are.
func configs(t *testing.T) (daemons, stocks map[string][]byte) {
	t.Helper()
	daemons, stocks = map[string][]byte{}, map[string][]byte{}
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".yaml") || strings.Contains(path, "testdata") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		top, _ := parsed(t, text).(map[string]any)
		switch {
		case top["modules"] != nil:
			daemons[path] = text
		case top["db"] != nil:
			stocks[path] = text
		}
		return nil
	})
	if err != nil || len(daemons) < 5 || len(stocks) < 1 {
		t.Fatalf("found %d and %d files, error %v", len(daemons), len(stocks), err)
	}
	return daemons, stocks
}

func TestSchema_TakesEveryConfigOfTheRepository(t *testing.T) {
	daemons, stocks := configs(t)
	s, stock := compiled(t, Schema()), compiled(t, StockSchema())
	for path, text := range daemons {
		if err := s.Validate(parsed(t, text)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, text := range stocks {
		if err := stock.Validate(parsed(t, text)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSchema_RefusesAMisspeltKeyAnywhere appends a letter to one key after the other.
func TestSchema_RefusesAMisspeltKeyAnywhere(t *testing.T) {
	text, err := os.ReadFile("../rowtide.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := compiled(t, Schema())
	var keys []*yaml.Node
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	var collect func(*yaml.Node)
	collect = func(n *yaml.Node) {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				keys = append(keys, c)
			} else {
				collect(c)
			}
		}
	}
	collect(&root)
	for _, k := range keys {
		k.Value += "x"
		var doc any
		if err := root.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		if s.Validate(doc) == nil {
			t.Errorf("line %d: %s is taken", k.Line, k.Value)
		}
		k.Value = strings.TrimSuffix(k.Value, "x")
	}
}

// The schema and Load agree on what a value may be.
func TestSchema_AgreesWithLoad(t *testing.T) {
	const with = "%s\nmodules: [{name: a, key: '{id}', from: {table: s.a}, %s}]\n"
	s := compiled(t, Schema())
	t.Setenv("ROWTIDE_SOURCE_ADDR", "db:3306")
	t.Setenv("ROWTIDE_SOURCE_USER", "u")
	t.Setenv("ROWTIDE_SOURCE_SERVER_ID", "7")
	t.Setenv("ROWTIDE_REDIS_ADDRS", "r:1")
	t.Setenv("ROWTIDE_KAFKA_BROKERS", "k:1")
	for _, tt := range []struct {
		top, module string
		ok          bool
	}{
		{"", "", true},
		{"", "ttl: 90s", true},
		{"", "ttl: 1h30m", true},
		{"", "ttl: 1.5h", true},
		{"", "ttl: 0", true},
		{"", "ttl: '0'", true},
		{"", "ttl: 60", false},
		{"", "ttl: '60'", false},
		{"", "ttl: 1 h", false},
		{"", "ttl: 1d", false},
		{"", "ttl: [1h]", false},
		{"", "version: 65535", true},
		{"", "version: 65536", false},
		{"", "version: -1", false},
		{"", "version: '1'", false},
		{"", "version: 1.5", false},
		{"", "on_error: optional", true},
		{"", "on_error: panic", false},
		{"", "empty: {ttl: 1s}", true},
		{"", "empty: 1s", false},
		{"redis: {cluster: true}", "", true},
		{"redis: {cluster: yes}", "", false},
		{"redis: {cluster: 'true'}", "", false},
		{"redis: {tls: off}", "", true},
		{"redis: {tls: false}", "", false},
		{"kafka: {brokers: a}", "", false},
		{"log: {level: info}", "", true},
		{"log: {level: INFO}", "", false},
		{"log: []", "", false},
		{"aggregator: {broadcast_every: -1ms}", "", true},
		{"kafak: {}", "", false},
	} {
		text := fmt.Sprintf(with, tt.top, tt.module)
		path := filepath.Join(t.TempDir(), "rowtide.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if schemaErr := s.Validate(parsed(t, []byte(text))); (schemaErr == nil) != tt.ok || (err == nil) != tt.ok {
			t.Errorf("%s %s: the schema says %v, Load says %v, want ok=%v", tt.top, tt.module, schemaErr, err, tt.ok)
		}
	}
}

// paths lists the keys of a schema that hold values, with what it says of each.
func paths(s *schema, path string, out map[string]*schema) map[string]*schema {
	for key, p := range s.Properties {
		at := strings.TrimPrefix(path+"."+key, ".")
		switch {
		case p.Properties != nil:
			paths(p, at, out)
		case p.Items != nil && p.Items.Properties != nil:
			paths(p.Items, at+"[]", out)
		default:
			out[at] = p
		}
	}
	return out
}

func TestSchema_HasTheKeysOfTheDocumentAndNoOther(t *testing.T) {
	rows := documented(docs.Configuration)
	all := paths(schemaOf(reflect.TypeFor[Config](), "", rows), "", map[string]*schema{})
	paths(schemaOf(reflect.TypeFor[Stock](), "", rows), "", all)
	for path, s := range all {
		if _, ok := rows[path]; !ok || s.Description == "" {
			t.Errorf("docs/configuration.md has no row for %s", path)
		}
	}
	for path := range rows {
		if strings.ContainsAny(path, ".[") && all[path] == nil {
			t.Errorf("docs/configuration.md explains %s, which is not in the schema", path)
		}
	}
	if s := all["modules[].ttl"]; string(s.Default) != `"24h"` || !strings.Contains(s.Description, "hard age") {
		t.Errorf("modules[].ttl: default %s, description %q", s.Default, s.Description)
	}
	if s := all["kafka.partitions"]; string(s.Default) != "12" {
		t.Errorf("kafka.partitions: default %s", s.Default)
	}
}

func TestStockSchema_HasItsOwnDefaults(t *testing.T) {
	if text := string(StockSchema()); !strings.Contains(text, `"default": "s"`) || !strings.Contains(text, `"default": "127.0.0.1:8078"`) || strings.Contains(text, DefaultListen) {
		t.Errorf("the stock API's schema has the daemon's defaults:\n%s", text)
	}
}

// oneOf is how validation words that it wants one of a few words.
var oneOf = regexp.MustCompile(`: want ([a-z_-]+(?:(?:, | or )[a-z_-]+)+)$`)

// TestSchema_WordsAreThoseThatValidationWants gives every text a value that no key
// takes, and compares what validation would have with what the schema has.
func TestSchema_WordsAreThoseThatValidationWants(t *testing.T) {
	rows := documented(docs.Configuration)
	var c Config
	var texts []string
	fields := map[string]reflect.Value{}
	fill(reflect.ValueOf(&c).Elem(), "", fields)
	for path, v := range fields {
		if v.Kind() == reflect.String && v.CanSet() {
			texts = append(texts, path)
		}
	}
	if len(texts) < 20 {
		t.Fatalf("%d keys with texts found", len(texts))
	}
	// What some keys may be is only looked at when others have a certain value.
	settings := [][2]string{{"name", ""}}
	for path, row := range rows {
		for _, word := range row.words {
			if _, ok := fields[path]; !ok {
				continue // of the stock API
			}
			settings = append(settings, [2]string{path, word})
		}
	}
	for _, path := range texts {
		var want []string
		for _, other := range settings {
			if other[0] == path || len(want) > 0 {
				continue
			}
			fields[other[0]].SetString(other[1])
			want = wordsWanted(&c, path, fields[path])
			fields[other[0]].SetString("")
		}
		if got := rows[path].words; !slices.Equal(got, want) {
			t.Errorf("%s: docs/configuration.md says one of %q, validation wants %q", path, got, want)
		}
	}
	if len(settings) < 15 {
		t.Errorf("%d words found", len(settings))
	}
}

// wordsWanted is what validation says that the text at path may be.
func wordsWanted(c *Config, path string, v reflect.Value) []string {
	v.SetString("?")
	defer v.SetString("")
	for _, err := range leaves(c.WithDefaults().Validate()) {
		at := regexp.MustCompile(`\[\d+\]`).ReplaceAllString(pathOf(reflect.TypeOf(*c), err.Error()), "[]")
		if m := oneOf.FindStringSubmatch(err.Error()); m != nil && at == path {
			return strings.Split(strings.ReplaceAll(m[1], " or ", ", "), ", ")
		}
	}
	return nil
}

// fill gives every list one item and every pointer a target, and notes the fields
// by path.
func fill(v reflect.Value, path string, out map[string]reflect.Value) {
	for v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if v.Kind() == reflect.Slice && behind(v.Type().Elem()).Kind() == reflect.Struct {
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), path+"[]", out)
		return
	}
	if v.Kind() != reflect.Struct {
		out[path] = v
		return
	}
	for f, fv := range v.Fields() {
		switch tag := f.Tag.Get("mapstructure"); tag {
		case "-", "":
		case ",squash":
			fill(fv, path, out)
		default:
			fill(fv, strings.TrimPrefix(path+"."+tag, "."), out)
		}
	}
}

// A field of a kind that no config has yet must not need more than its row.
func TestDocument_ReadsAnyKindOfField(t *testing.T) {
	type part struct {
		Size *int32 `mapstructure:"size"`
	}
	type inner struct {
		Depth int `mapstructure:"depth"`
	}
	type whole struct {
		inner  `mapstructure:",squash"`
		Ratio  float64           `mapstructure:"ratio"`
		Small  uint8             `mapstructure:"small"`
		Wait   *time.Duration    `mapstructure:"wait"`
		Part   *part             `mapstructure:"part"`
		Parts  []*part           `mapstructure:"parts"`
		Ports  []uint16          `mapstructure:"ports"`
		Labels map[string]string `mapstructure:"labels"`
		Any    any               `mapstructure:"any"`
		Hidden string            `mapstructure:"-"`
	}
	path := filepath.Join(t.TempDir(), "x.yaml")
	read := func(text string) (whole, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var w whole
		d := readDocument(path, reflect.TypeOf(w))
		d.decode(&w)
		return w, d.err()
	}
	t.Setenv("ROWTIDE_PART_SIZE", "5")
	w, err := read("ratio: 1\nsmall: 255\nwait: 2s\nparts: [{size: 3}]\nports: [80]\nlabels: {a: b}\nany: [1, {x: y}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if w.Ratio != 1 || w.Small != 255 || *w.Wait != 2*time.Second || *w.Part.Size != 5 || *w.Parts[0].Size != 3 || w.Ports[0] != 80 || w.Labels["a"] != "b" || w.Any == nil {
		t.Errorf("read %+v", w)
	}
	_, err = read("ratio: x\nsmall: 256\nparts: [{size: 1h}]\nports: [-1]\nlabels: [a]\nHidden: x\n")
	if e, ok := errors.AsType[*Error](err); !ok || len(e.Faults) != 6 {
		t.Errorf("err=%v, want six faults", err)
	}
	if s := schemaOf(reflect.TypeFor[whole](), "", nil); s.Properties["hidden"] != nil || s.Properties["ratio"].Type != "number" || *s.Properties["small"].Maximum != 255 {
		t.Errorf("schema %+v", s)
	}
}
