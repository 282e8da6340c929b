package deploy_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// races is how many ways to go stale are known.
const races = 27

// raceFaults are the races without a row, a row without a test of its number, and
// tests of races that their row does not name.
func raceFaults(page string, tests []string) []string {
	var out []string
	row := regexp.MustCompile(`(?m)^\| R(\d+) \| .+ \| .+ \| (.+) \|$`)
	rows := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		rows[m[1]] = m[2]
	}
	for i := 1; i <= races; i++ {
		cell, ok := rows[fmt.Sprint(i)]
		if !ok {
			out = append(out, fmt.Sprintf("there is no row of R%d", i))
			continue
		}
		named := 0
		for _, name := range tests {
			if !strings.HasPrefix(name, fmt.Sprintf("TestR%d_", i)) {
				continue
			}
			named++
			if !strings.Contains(cell, "`"+name+"`") {
				out = append(out, fmt.Sprintf("the row of R%d does not name %s", i, name))
			}
		}
		if named == 0 {
			out = append(out, fmt.Sprintf("R%d has no test TestR%d_…", i, i))
		}
	}
	return out
}

func TestRaces_EachHasARowAndATest(t *testing.T) {
	var tests []string
	declared := regexp.MustCompile(`(?m)^func (TestR\d+_\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
			tests = append(tests, m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	page := read(t, "docs/races.md")
	for _, fault := range raceFaults(page, tests) {
		t.Error(fault)
	}

	// The check itself: a page without a row, and a race without a test, are seen.
	spoilt := regexp.MustCompile(`(?m)^\| R7 .*\n`).ReplaceAllString(page, "")
	if got := raceFaults(spoilt, tests); !slices.Contains(got, "there is no row of R7") {
		t.Errorf("without the row of R7: %q", got)
	}
	if got := raceFaults(page, nil); len(got) != races {
		t.Errorf("without any test: %d faults, want %d", len(got), races)
	}
	if got := raceFaults(page, append(tests, "TestR7_Forgotten")); !slices.Contains(got, "the row of R7 does not name TestR7_Forgotten") {
		t.Errorf("with a test that the row of R7 does not name: %q", got)
	}
}
