package feed

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/rowtide/rowtide"
)

var update = flag.Bool("update", false, "write what the decoders say into testdata; then read it")

// vector is a file of testdata: one record and what it means.
type vector struct {
	About string          `json:"about"`
	Types []string        `json:"types,omitempty"`
	Zone  string          `json:"time_zone,omitempty"`
	Key   json.RawMessage `json:"key,omitempty"`
	Value json.RawMessage `json:"value"`
	Want  meaning         `json:"want"`
}

// meaning is an event in a form to be read: values as "type JSON".
type meaning struct {
	Error    string          `json:"error,omitempty"`
	Passed   string          `json:"passed,omitempty"`
	Position string          `json:"position,omitempty"`
	Snapshot bool            `json:"snapshot,omitempty"`
	Group    string          `json:"group,omitempty"`
	Last     bool            `json:"last,omitempty"`
	At       string          `json:"at,omitempty"`
	Changes  []changeMeaning `json:"changes,omitempty"`
}

type changeMeaning struct {
	Op     string   `json:"op"`
	Table  string   `json:"table"`
	Key    []string `json:"key,omitempty"`
	Before []string `json:"before,omitempty"`
	After  []string `json:"after,omitempty"`
}

func meaningOf(t *testing.T, e *event, err error) meaning {
	t.Helper()
	if err != nil {
		return meaning{Error: err.Error()}
	}
	m := meaning{Passed: e.passed, Snapshot: e.snapshot, Group: e.group, Last: e.last}
	if e.file != "" {
		m.Position = rowtide.Position{File: e.file, Pos: e.pos}.String()
	}
	if len(e.changes) > 0 {
		m.At = e.at.Format("2006-01-02T15:04:05.999Z07:00")
	}
	for _, c := range e.changes {
		cm := changeMeaning{Op: c.Op.String(), Table: c.Table.String(), Before: rendered(t, &c, c.Before), After: rendered(t, &c, c.After)}
		for _, i := range c.Table.PrimaryKey {
			cm.Key = append(cm.Key, c.Table.Columns[i])
		}
		m.Changes = append(m.Changes, cm)
	}
	return m
}

func rendered(t *testing.T, c *rowtide.Change, row []rowtide.Value) []string {
	t.Helper()
	var out []string
	for i, v := range row {
		b, err := rowtide.AppendValue(nil, v)
		if err != nil {
			t.Fatalf("column %s is no value: %v", c.Table.Columns[i], err)
		}
		out = append(out, fmt.Sprintf("%s: %T %s", c.Table.Columns[i], v, b))
	}
	return out
}

// Every record of testdata means what stands beside it.
func TestVectors(t *testing.T) {
	for format, folder := range map[string]string{FormatCanal: "canal", FormatDebezium: "debezium", FormatMaxwell: "maxwell"} {
		paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.json"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no vectors of %s: %v", format, err)
		}
		for _, path := range paths {
			t.Run(folder+"/"+filepath.Base(path), func(t *testing.T) {
				v := readVector(t, path)
				cfg := Config{Format: format, Types: v.Types, TimeZone: v.Zone}.WithDefaults()
				dec, err := newDecoder(cfg, map[string]bool{"shop.event": true})
				if err != nil {
					t.Fatal(err)
				}
				e, err := dec.decode(v.Key, v.Value)
				got := meaningOf(t, e, err)
				if *update {
					v.Want = got
					writeVector(t, path, v)
					return
				}
				if !reflect.DeepEqual(got, v.Want) {
					a, _ := json.MarshalIndent(got, "", "  ")
					b, _ := json.MarshalIndent(v.Want, "", "  ")
					t.Errorf("%s means\n%s\nwant\n%s", v.About, a, b)
				}
			})
		}
	}
}

func readVector(t testing.TB, path string) vector {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

func writeVector(t *testing.T, path string, v vector) {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
