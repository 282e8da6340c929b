package main

import (
	"fmt"
	"strings"

	"github.com/rowtide/rowtide/aggregator"
)

// keyTemplate is the template by which the rows of the module's table give its
// keys.
func keyTemplate(m *aggregator.Module) string {
	cfg := m.Config()
	if cfg.From != nil {
		return cfg.Key
	}
	for _, w := range cfg.Watch {
		if w.Key != "" {
			return w.Key
		}
	}
	return cfg.Key
}

// keysCondition is the SQL condition for the rows whose key is one of keys. A key
// that can be taken apart in several ways stands for all of them.
func keysCondition(template string, keys []string) (string, error) {
	var literals, columns []string
	for rest := template; ; {
		literal, after, found := strings.Cut(rest, "{")
		literals = append(literals, literal)
		if !found {
			break
		}
		column, more, _ := strings.Cut(after, "}") // the config was checked
		columns = append(columns, "`"+strings.ReplaceAll(column, "`", "``")+"`")
		rest = more
	}
	var or []string
	for _, key := range keys {
		rest, fits := strings.CutPrefix(key, literals[0])
		var ways [][]string
		if fits {
			ways = takeApart(rest, literals[1:])
		}
		if len(ways) == 0 {
			return "", fmt.Errorf("key %q does not look like %q", key, template)
		}
		for _, values := range ways {
			and := make([]string, len(columns))
			for i, c := range columns {
				and[i] = c + " = " + quoteText(values[i])
			}
			or = append(or, "("+strings.Join(and, " AND ")+")")
		}
	}
	return strings.Join(or, " OR "), nil
}

// takeApart lists the ways to read s as a value before each of the literals; the
// last one ends it.
func takeApart(s string, literals []string) [][]string {
	if len(literals) == 1 {
		value, fits := strings.CutSuffix(s, literals[0])
		if !fits {
			return nil
		}
		return [][]string{{value}}
	}
	var out [][]string
	for i := 0; i <= len(s); i++ {
		if !strings.HasPrefix(s[i:], literals[0]) {
			continue
		}
		for _, rest := range takeApart(s[i+len(literals[0]):], literals[1:]) {
			out = append(out, append([]string{s[:i]}, rest...))
		}
	}
	return out
}

// quoteText is s as an SQL string.
func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
