package feed

import (
	"path/filepath"
	"testing"

	"github.com/rowtide/rowtide"
)

// Whatever a topic holds, a decoder gives changes that fit their table, passes
// the record over, or says what is wrong with it.
func FuzzDecode(f *testing.F) {
	formats := map[string]byte{"canal": 0, "debezium": 1, "maxwell": 2}
	for folder, n := range formats {
		paths, _ := filepath.Glob(filepath.Join("testdata", folder, "*.json"))
		for _, path := range paths {
			v := readVector(f, path)
			f.Add(n, []byte(v.Key), []byte(v.Value))
		}
	}
	for _, text := range []string{"", "{", "[]", "null", `"x"`, `{"data":[1]}`, `{"payload":{"op":"c"}}`, `{"type":"insert","data":[]}`} {
		f.Add(byte(0), []byte(text), []byte(text))
		f.Add(byte(1), []byte(text), []byte(text))
		f.Add(byte(2), []byte(text), []byte(text))
	}
	f.Fuzz(func(t *testing.T, format byte, key, value []byte) {
		cfg := Config{Format: []string{FormatCanal, FormatDebezium, FormatMaxwell}[format%3], Types: []string{
			"shop.event.price decimal(10,2)", "shop.event.tags set('a','b')", "shop.event.state enum('x','y')",
			"shop.event.pic binary(4)", "shop.event.doc json", "shop.event.flags bit(3)", "shop.event.dur time(3)",
		}}.WithDefaults()
		dec, err := newDecoder(cfg, map[string]bool{"shop.event": true})
		if err != nil {
			t.Fatal(err)
		}
		e, err := dec.decode(key, value)
		if err != nil {
			return
		}
		for _, c := range e.changes {
			for _, row := range [][]rowtide.Value{c.Before, c.After} {
				if row != nil && len(row) != len(c.Table.Columns) {
					t.Fatalf("%d values for %d columns", len(row), len(c.Table.Columns))
				}
				for i, v := range row {
					if _, err := rowtide.AppendValue(nil, v); err != nil {
						t.Fatalf("column %s: %v", c.Table.Columns[i], err)
					}
				}
			}
			if c.Op == rowtide.OpTruncate {
				continue
			}
			if (c.Op != rowtide.OpInsert) != (c.Before != nil) || (c.Op != rowtide.OpDelete) != (c.After != nil) {
				t.Fatalf("%s with before %v and after %v", c.Op, c.Before, c.After)
			}
		}
	})
}
