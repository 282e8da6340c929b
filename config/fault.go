package config

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Error is what is wrong with a config file; exit code 2.
type Error struct {
	// File is the path as it was given.
	File string
	// Faults are all that were found, in the file's order, those of variables last.
	Faults []Fault
}

func (e *Error) Error() string {
	if len(e.Faults) == 1 {
		return e.Faults[0].String()
	}
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return fmt.Sprintf("config %s has %d faults:\n%s", e.File, len(lines), strings.Join(lines, "\n"))
}

func (e *Error) Unwrap() []error {
	errs := make([]error, len(e.Faults))
	for i, f := range e.Faults {
		errs[i] = f.Err
	}
	return errs
}

// Fault is one thing wrong, and where to mend it: in a file or in a variable.
type Fault struct {
	File string
	Line int // from 1; 0 if the fault has none
	// Variable is the environment variable that gave the value instead of File.
	Variable string
	Err      error
}

// String is one line: file:line: or the variable's name, then what is wrong.
func (f Fault) String() string {
	text := strings.ReplaceAll(f.Err.Error(), "\n", " ")
	switch {
	case f.Variable != "":
		return f.Variable + ": " + text
	case f.Line == 0:
		return f.File + ": " + text
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, text)
}

// leaves takes joined errors apart.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var texts []string
	var out []error
	for _, e := range joined.Unwrap() {
		texts = append(texts, e.Error())
		out = append(out, leaves(e)...)
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err} // it wraps several but says more than they do
	}
	return out
}

// keyPath is what a validation's sentence begins with: source.addr or
// modules[0] (film).watch[1].keys.
var (
	keyPath   = regexp.MustCompile(`^[a-z][a-z0-9_]*(?:\[\d+\](?: \(.*?\))?)?(?:\.[a-z][a-z0-9_]*(?:\[\d+\](?: \(.*?\))?)?)*`)
	pathLabel = regexp.MustCompile(` \(.*?\)`)
)

// pathOf is the key that a sentence begins with, "" if it begins with none.
func pathOf(t reflect.Type, sentence string) string {
	path := pathLabel.ReplaceAllString(keyPath.FindString(sentence), "")
	top, _, _ := strings.Cut(path, ".")
	top, _, _ = strings.Cut(top, "[")
	if setting(t, top) == nil {
		return ""
	}
	return path
}

// above is the path of what holds path; "" at the top.
func above(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// variable is the environment variable that stands for a key outside of lists.
func variable(path string) string {
	return envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// overriding is the variable that gave the value at path, "" if none did.
func overriding(t reflect.Type, path string) string {
	path, _, _ = strings.Cut(path, "[")
	if variables(t, "", map[string]reflect.Type{})[path] == nil || os.Getenv(variable(path)) == "" {
		return ""
	}
	return variable(path)
}

// add notes a fault of the key at path, on its line.
func (d *document) add(path string, line int, format string, args ...any) {
	d.bad[path] = true
	d.faults = append(d.faults, Fault{File: d.path, Line: line, Err: fmt.Errorf(format, args...)})
}

// addAll notes what validation found, unless the reading has already reported the
// same key: what could not be read looks as if it were missing.
func (d *document) addAll(err error) {
	for _, e := range leaves(err) {
		path := pathOf(d.of, e.Error())
		if d.isBad(path) {
			continue
		}
		f := Fault{File: d.path, Variable: overriding(d.of, path), Err: e}
		if f.Variable == "" {
			f.Line = d.line(path)
		}
		d.faults = append(d.faults, f)
	}
}

func (d *document) isBad(path string) bool {
	for ; path != ""; path = above(path) {
		_, there := d.places[path]
		if d.bad[path] || d.meant[path] && !there {
			return true
		}
	}
	return false
}

// line is where path stands, or what is to hold it.
func (d *document) line(path string) int {
	for ; path != ""; path = above(path) {
		if p, ok := d.places[path]; ok {
			return p.line
		}
	}
	return 1
}

// err is all faults in the file's order, nil if there are none.
func (d *document) err() error {
	slices.SortStableFunc(d.faults, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(min(len(a.Variable), 1), min(len(b.Variable), 1)),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Variable, b.Variable),
		)
	})
	// A node behind an alias is read wherever it is used.
	faults := slices.CompactFunc(d.faults, func(a, b Fault) bool { return a.String() == b.String() })
	if len(faults) == 0 {
		return nil
	}
	return &Error{File: d.path, Faults: faults}
}
