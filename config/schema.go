package config

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/rowtide/rowtide/docs"
)

// durationPattern is what time.ParseDuration takes, with a unit.
const durationPattern = `^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`

// schema is a node of a JSON Schema, in the words that are needed here.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Minimum     *int64             `json:"minimum,omitempty"`
	Maximum     *uint64            `json:"maximum,omitempty"`
	Default     json.RawMessage    `json:"default,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Additional  *bool              `json:"additionalProperties,omitempty"`
}

// Schema is the JSON Schema (draft 2020-12) of the daemon's file, for editors. The
// keys and their types are those of [Config]; what they mean, which are required,
// their defaults and the words that they take are read from docs/configuration.md.
// A key that the environment can give is not required of the file.
func Schema() []byte { return render(reflect.TypeFor[Config](), "rowtide.yaml", nil) }

// StockSchema is [Schema] for the stock API's file.
func StockSchema() []byte {
	// Keys that it shares with the daemon have these defaults of their own.
	return render(reflect.TypeFor[Stock](), "stock.yaml", map[string]string{"redis.prefix": "s", "http.listen": DefaultStockListen})
}

func render(t reflect.Type, title string, defaults map[string]string) []byte {
	rows := documented(docs.Configuration)
	for path, text := range defaults {
		row := rows[path]
		row.fallback = text
		rows[path] = row
	}
	s := schemaOf(t, "", rows)
	s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", title
	if setting(t, "modules") != nil {
		s.Required = []string{"modules"}
	}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return append(out, '\n')
}

// schemaOf describes what may stand at path; the path of a list's items ends in [].
func schemaOf(t reflect.Type, path string, rows map[string]row) *schema {
	doc := rows[path]
	s := &schema{Description: doc.meaning, Enum: doc.words}
	if doc.words != nil && doc.fallback == "" {
		s.Enum = append(s.Enum, "") // not given, as rowtide.example.yaml has it
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		// Without a unit there is only 0.
		s.Type, s.Pattern, s.Minimum, s.Maximum = []string{"string", "integer"}, durationPattern, new(int64), new(uint64)
	case t.Kind() == reflect.Struct:
		s.Type, s.Additional, s.Properties = "object", new(bool), map[string]*schema{}
		for key, ft := range settings(t) {
			at := strings.TrimPrefix(path+"."+key, ".")
			s.Properties[key] = schemaOf(ft, at, rows)
			if rows[at].required && strings.Contains(at, "[]") {
				s.Required = append(s.Required, key)
			}
		}
	case t.Kind() == reflect.Slice:
		s.Type, s.Enum = "array", nil
		s.Items = schemaOf(behind(t.Elem()), path+"[]", rows)
		s.Items.Enum = append(s.Items.Enum, doc.words...)
	case t.Kind() == reflect.String:
		s.Type = "string"
	case t.Kind() == reflect.Bool:
		s.Type = "boolean"
	case isInt(t) && t.Bits() == 64:
		s.Type = "integer"
	case isInt(t):
		lowest, highest := bounds(t)
		s.Type, s.Minimum, s.Maximum = "integer", &lowest, &highest
	case isFloat(t):
		s.Type = "number"
	case t.Kind() == reflect.Map:
		s.Type = "object"
	}
	s.Default = literal(s.Type, doc.fallback)
	return s
}

// literal is a default in JSON, nil if there is none.
func literal(kind any, text string) json.RawMessage {
	switch {
	case text == "" || kind == "object" || kind == "array":
		return nil
	case kind == "boolean" || kind == "integer" || kind == "number":
		return json.RawMessage(text)
	}
	out, _ := json.Marshal(text) // a string has a form
	return out
}

// row is what docs/configuration.md says of a key.
type row struct {
	words    []string // that the key takes, if they are few
	required bool
	fallback string // the default as it is written in the file
	meaning  string
}

var (
	tableRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*?) \\| (.*?) \\| (.*) \\|\r?$")
	aWord    = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// documented reads the rows | `key` | type | default | meaning |. A type is a word,
// or the values in back-quotes: one of `a`, `b`.
func documented(page string) map[string]row {
	out := map[string]row{}
	for _, m := range tableRow.FindAllStringSubmatch(page, -1) {
		r := row{required: m[3] == "required", meaning: link.ReplaceAllString(strings.ReplaceAll(m[4], "`", ""), "$1")}
		for _, w := range aWord.FindAllStringSubmatch(m[2], -1) {
			r.words = append(r.words, w[1])
		}
		if d := strings.Trim(m[3], "`"); d != m[3] {
			r.fallback = d
		}
		out[m[1]] = r
	}
	return out
}
