package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// document is a YAML file read after the shape of a config type: its values, the
// places of its keys and its faults.
type document struct {
	path   string
	of     reflect.Type
	values map[string]any
	places map[string]place
	faults []Fault
	bad    map[string]bool // paths with a fault
	meant  map[string]bool // paths that misspelt keys seem to mean
	broken bool            // nothing can be said about what is in it
}

type place struct {
	line  int
	value *yaml.Node
}

// readDocument reads the file at path for a config of type t. What is wrong with
// it is in faults.
func readDocument(path string, t reflect.Type) *document {
	d := &document{path: path, of: t, values: map[string]any{}, places: map[string]place{}, bad: map[string]bool{}, meant: map[string]bool{}}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fail(0, errors.New("no such file; README.md shows a first one"))
		return d
	case err != nil:
		d.fail(0, err)
		return d
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var root, second yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return d // an empty file lacks everything, says validation
	} else if err != nil {
		d.fail(syntaxError(text, err))
		return d
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.add("", second.Line, "a second document begins here; keep one")
	case !errors.Is(err, io.EOF):
		d.fail(syntaxError(text, err))
	}
	if v, ok := d.value(root.Content[0], t, "").(map[string]any); ok {
		d.values = v
	}
	return d
}

// fail notes a fault of the file as a whole: nothing else that is found is worth
// saying.
func (d *document) fail(line int, err error) {
	d.broken = true
	d.faults = append(d.faults, Fault{File: d.path, Line: line, Err: err})
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError finds the line of what the YAML parser says.
func syntaxError(text []byte, err error) (int, error) {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	first := func(is func(string) bool) int { return slices.IndexFunc(lines, is) + 1 }
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, fmt.Errorf("not readable as YAML: %w", err)
	}
	line, what := 1, m[2] // the library leaves a first line out
	if m[1] != "" {
		line, _ = strconv.Atoi(m[1])
	}
	remedy := ""
	switch {
	case strings.HasPrefix(what, "did not find expected"):
		line++ // its parser counts from 0, its scanner from 1
		remedy = "; look for a bracket or quote that is not closed, or a wrong indentation, at or above this line"
	case strings.HasPrefix(what, "unknown anchor"):
		anchor := strings.Split(what, "'")[1]
		line = first(func(s string) bool { return strings.Contains(s, "*"+anchor) })
		remedy = "; define it with &" + anchor + " above its use"
	case strings.Contains(what, "UTF-8"):
		line = first(func(s string) bool { return !utf8.ValidString(s) })
		remedy = "; save the file as UTF-8"
	case strings.Contains(what, "control characters"):
		line = first(func(s string) bool {
			return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f })
		})
		remedy = "; remove them"
	case strings.Contains(what, "mapping values are not allowed"):
		remedy = `; quote a value that contains ": "`
	}
	line = min(max(line, 1), len(lines))
	if strings.Contains(lines[line-1], "\t") && (strings.Contains(what, "tab") || strings.Contains(what, "cannot start any token")) {
		remedy = "; indent with spaces, not with tabs"
	}
	return line, fmt.Errorf("not readable as YAML: %s%s", what, remedy)
}

// value reads what stands at path as a value for a field of type t; nil if there
// is nothing or it is at fault.
func (d *document) value(n *yaml.Node, t reflect.Type, path string) any {
	n, t = target(n), behind(t)
	if _, ok := d.places[path]; !ok && path != "" {
		d.places[path] = place{n.Line, n}
	}
	switch {
	case n.ShortTag() == "!!null":
		return nil
	case t.Kind() == reflect.Struct:
		return d.mapping(n, t, path)
	case t.Kind() == reflect.Slice:
		return d.list(n, t, path)
	}
	v, err := scalar(n, t)
	if err != nil {
		d.add(path, d.line(path), "%s: %w", path, err)
		return nil
	}
	return v
}

func (d *document) mapping(n *yaml.Node, t reflect.Type, path string) any {
	if n.Kind != yaml.MappingNode {
		if path == "" {
			d.fail(n.Line, fmt.Errorf("want keys such as source: and modules:, not %s", kindOf(n)))
			return nil
		}
		d.add(path, d.line(path), "%s: want keys below it, not %s", path, kindOf(n))
		return nil
	}
	out := map[string]any{}
	for _, p := range d.pairs(n, path, nil) {
		at := strings.TrimPrefix(path+"."+p.key.Value, ".")
		ft := setting(t, p.key.Value)
		if ft == nil {
			d.unknown(p.key, t, path, at)
			continue
		}
		d.places[at] = place{p.key.Line, target(p.value)}
		if v := d.value(p.value, ft, at); v != nil {
			out[p.key.Value] = v
		}
	}
	return out
}

// unknown notes a key that does not exist. The key that was meant will seem to be
// missing, which is then not worth saying.
func (d *document) unknown(key *yaml.Node, t reflect.Type, path, at string) {
	near := suggest(t, d.of, key.Value)
	if near == "" {
		d.add(at, key.Line, "%s is not a known key; remove it, or see docs/configuration.md", at)
		return
	}
	d.meant[strings.TrimPrefix(path+"."+near, ".")] = true
	d.add(at, key.Line, "%s is not a known key; did you mean %q?", at, near)
}

func (d *document) list(n *yaml.Node, t reflect.Type, path string) any {
	if n.Kind != yaml.SequenceNode {
		d.add(path, d.line(path), "%s: want a list, not %s; put - before each item, or brackets around them", path, kindOf(n))
		return nil
	}
	out := make([]any, 0, len(n.Content))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		v := d.value(item, t.Elem(), at)
		if v == nil && !d.bad[at] {
			d.add(at, item.Line, "%s is empty; fill it in or remove it", at)
		}
		if v == nil { // keep the places of the others
			v = reflect.Zero(t.Elem()).Interface()
		}
		out = append(out, v)
	}
	return out
}

type pair struct{ key, value *yaml.Node }

// pairs lists the keys of the mapping at path, with those merged in by << that it
// does not have itself; within are the nodes that are being merged.
func (d *document) pairs(n *yaml.Node, path string, within []*yaml.Node) []pair {
	var out []pair
	var merged []*yaml.Node
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := target(n.Content[i]), n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		first, again := lines[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.add(path, key.Line, "%sa key must be a word, not %s", prefixed(path), kindOf(key))
		case again:
			d.add(at, key.Line, "%s is given twice, first in line %d; keep one", at, first)
		case key.ShortTag() == "!!merge":
			merged = append(merged, value)
		default:
			lines[key.Value] = key.Line
			out = append(out, pair{key, value})
		}
	}
	for _, m := range merged {
		for _, p := range d.merge(m, path, append(within, n)) {
			if _, own := lines[p.key.Value]; !own {
				lines[p.key.Value] = p.key.Line
				out = append(out, p)
			}
		}
	}
	return out
}

// merge lists the keys of what stands behind <<.
func (d *document) merge(n *yaml.Node, path string, within []*yaml.Node) []pair {
	line := n.Line
	n = target(n)
	switch {
	case n.Kind == yaml.MappingNode && !slices.Contains(within, n):
		return d.pairs(n, path, within)
	case n.Kind == yaml.SequenceNode && !slices.Contains(within, n):
		var out []pair
		for _, item := range n.Content {
			out = append(out, d.merge(item, path, append(within, n))...)
		}
		return out
	}
	d.add(path, line, "%s<< wants an alias of other keys, such as <<: *defaults", prefixed(path))
	return nil
}

// target is the node behind aliases.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func prefixed(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}
