package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// located is an error whose lines begin with their places in a file.
type located struct {
	error
	text string
}

func (e *located) Error() string { return e.text }
func (e *located) Unwrap() error { return e.error }

// Locate puts before each line of err that is about a key of the daemon's file at
// path the line where that key stands, or the variable that gave its value: err is
// what a server said about the config. It wraps err; a nil err stays nil.
func Locate(path string, err error) error { return locate(path, reflect.TypeFor[Config](), err) }

// LocateStock is [Locate] for the stock API's file.
func LocateStock(path string, err error) error { return locate(path, reflect.TypeFor[Stock](), err) }

func locate(path string, t reflect.Type, err error) error {
	if err == nil {
		return nil
	}
	d := readDocument(path, t)
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		lines = append(lines, d.placed(line))
	}
	return &located{err, strings.Join(lines, "\n")}
}

var (
	inModule = regexp.MustCompile(`^module ([^ :]+): (.*)$`)
	inParens = regexp.MustCompile(`\(([a-z_]+\.[a-z_.]+)`)
	ofColumn = regexp.MustCompile(`no column "([^"]+)"`)
	ofTable  = regexp.MustCompile(`\btable "?([^\s"]+)`)
)

// placed is a sentence with its place before it, if it has one.
func (d *document) placed(sentence string) string {
	path := pathOf(d.of, sentence)
	if m := inModule.FindStringSubmatch(sentence); m != nil {
		path = d.inModule(m[1], m[2])
	} else if m := inParens.FindStringSubmatch(sentence); path == "" && m != nil {
		path = pathOf(d.of, m[1])
	}
	if v := overriding(d.of, path); v != "" {
		return v + ": " + sentence
	}
	for ; path != ""; path = above(path) {
		if p, ok := d.places[path]; ok {
			return fmt.Sprintf("%s:%d: %s", d.path, p.line, sentence)
		}
	}
	return sentence
}

// inModule is the path of what is said of a module: a key that the sentence begins
// with, or the place that names the column or the table it speaks of.
func (d *document) inModule(name, sentence string) string {
	module := ""
	for path, p := range d.places {
		if above(above(path)) == "modules" && strings.HasSuffix(path, "].name") && p.value.Value == name {
			module = above(path)
		}
	}
	if module == "" {
		return ""
	}
	key := pathLabel.ReplaceAllString(keyPath.FindString(sentence), "")
	if _, ok := d.places[module+"."+key]; ok {
		return module + "." + key
	}
	table, column := ofTable.FindStringSubmatch(sentence), ofColumn.FindStringSubmatch(sentence)
	found := module
	if table != nil {
		for _, path := range d.holding(module, regexp.MustCompile("^"+regexp.QuoteMeta(table[1])+"$")) {
			if column == nil {
				return path
			}
			found = path
			// Where the table is named, the column is near; if not, then in the key.
			if near := d.holding(above(path), word(column[1])); len(near) > 0 {
				return near[0]
			}
		}
	}
	if column != nil {
		if at := d.holding(module+".key", word(column[1])); len(at) > 0 {
			return at[0]
		}
	}
	return found
}

func word(s string) *regexp.Regexp {
	return regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(s) + `(\W|$)`)
}

// holding lists the paths at or below one whose text matches, in the file's order.
func (d *document) holding(path string, match *regexp.Regexp) []string {
	var out []string
	for _, at := range slices.SortedFunc(maps.Keys(d.places), func(a, b string) int {
		return cmp.Or(cmp.Compare(d.places[a].line, d.places[b].line), cmp.Compare(a, b))
	}) {
		rest, below := strings.CutPrefix(at, path)
		if below && (rest == "" || rest[0] == '.' || rest[0] == '[') &&
			d.places[at].value.Kind == yaml.ScalarNode && match.MatchString(d.places[at].value.Value) {
			out = append(out, at)
		}
	}
	return out
}
