package aggregator

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var moduleName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// ValidateModules checks all modules and reports every fault, joined.
func ValidateModules(modules []ModuleConfig) error {
	var errs []error
	if len(modules) == 0 {
		errs = append(errs, errors.New("modules is empty: describe at least one module"))
	}
	seen := map[string]bool{}
	for i, m := range modules {
		where := fmt.Sprintf("modules[%d]", i)
		if m.Name != "" {
			where = fmt.Sprintf("modules[%d] (%s)", i, m.Name)
		}
		if seen[m.Name] {
			errs = append(errs, fmt.Errorf("%s: the name is used twice; two modules cannot share a key space", where))
		}
		seen[m.Name] = true
		for _, err := range m.faults() {
			errs = append(errs, fmt.Errorf("%s%w", where, err))
		}
	}
	return errors.Join(errs...)
}

// faults are worded to follow the module's place: ".key is missing: …".
func (c ModuleConfig) faults() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !moduleName.MatchString(c.Name) {
		bad(".name %q: want lower-case letters, digits, _ and -, at most 63", c.Name)
	}
	if _, err := parseTemplate(c.Key); err != nil {
		bad(".key: %w", err)
	}
	if c.TTL < 0 || c.Refresh < 0 || c.Empty.TTL < 0 || c.Empty.Refresh < 0 || c.MaxStale < 0 || c.Window < 0 {
		bad(": a duration is negative; ttl, refresh, empty, max_stale and window count up from zero")
	}
	for _, f := range []struct {
		key, value string
		want       []string
	}{
		{"on_error", c.OnError, []string{OnErrorKeep, OnErrorOptional}},
		{"on_fault", c.OnFault, []string{OnFaultHalt, OnFaultSetAside}},
		{"codec", c.Codec, []string{CodecJSON, CodecMsgpack, CodecRaw}},
		{"layout", c.Layout, []string{LayoutEnvelope, LayoutPlain}},
	} {
		if f.value != "" && !slices.Contains(f.want, f.value) {
			bad(".%s %q: want %s", f.key, f.value, strings.Join(f.want, " or "))
		}
	}
	if c.TTLJitter > 1 {
		bad(".ttl_jitter %g: want a share of the ttl, at most 1", c.TTLJitter)
	}
	if c.MaxValue < 0 {
		bad(".max_value %d: want bytes, above zero", c.MaxValue)
	}
	switch {
	case (c.From == nil) == (c.Rebuild == nil):
		bad(": give exactly one of from and rebuild")
	case c.From != nil:
		errs = append(errs, c.fromFaults()...)
	default:
		errs = append(errs, c.rebuildFaults()...)
	}
	return errs
}

func (c ModuleConfig) fromFaults() []error {
	var errs []error
	if err := tableName(c.From.Table); err != nil {
		errs = append(errs, fmt.Errorf(".from.table %w", err))
	}
	if len(c.Watch) > 0 {
		errs = append(errs, errors.New(".watch: a from module watches its own table only; use rebuild for more"))
	}
	var names []string
	field := func(where, name string) {
		if slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("%s: %q is listed twice", where, name))
		}
		names = append(names, name)
	}
	for _, col := range c.From.Columns {
		_, name, err := columnAs(col)
		if err != nil {
			errs = append(errs, fmt.Errorf(".from.columns: %w", err))
			continue
		}
		field(".from.columns", name)
	}
	if c.From.Where != "" {
		if _, err := parseExpression(c.From.Where); err != nil {
			errs = append(errs, fmt.Errorf(".from.where %w", err))
		}
	}
	for i, f := range c.From.Fields {
		place := fmt.Sprintf(".from.fields[%d]", i)
		if f.Name == "" {
			errs = append(errs, fmt.Errorf("%s.name is missing", place))
		}
		field(place+".name", f.Name)
		if _, err := parseExpression(f.Expr); err != nil {
			errs = append(errs, fmt.Errorf("%s.expr %w", place, err))
		}
	}
	if c.Codec == CodecRaw && (len(c.From.Columns) != 1 || len(c.From.Fields) > 0) {
		errs = append(errs, errors.New(".codec raw: the value is one column's bytes, so give from.columns exactly one, and no from.fields"))
	}
	return errs
}

// columnAs reads "column" or "column AS name".
func columnAs(s string) (column, name string, err error) {
	f := strings.Fields(s)
	switch {
	case len(f) == 1:
		return f[0], f[0], nil
	case len(f) == 3 && strings.EqualFold(f[1], "as"):
		return f[0], f[2], nil
	}
	return "", "", fmt.Errorf("%q: want a column, or \"column AS name\"", s)
}

func (c ModuleConfig) rebuildFaults() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if t, err := parseTemplate(c.Key); err == nil && t.single() == "" {
		bad(".key %q: a rebuild module's key is one column, such as \"{id}\"", c.Key)
	}
	if c.Codec == CodecRaw {
		bad(".codec raw: a rebuild module's value is a document; use json or msgpack")
	}
	if err := keysQuery(c.Rebuild.One); err != nil {
		bad(".rebuild.one %w", err)
	}
	names := map[string]bool{}
	for i, m := range c.Rebuild.Many {
		if m.Name == "" || names[m.Name] {
			bad(".rebuild.many[%d].name %q is missing or used twice", i, m.Name)
		}
		names[m.Name] = true
		if err := keysQuery(m.Query); err != nil {
			bad(".rebuild.many[%d].query %w", i, err)
		}
	}
	if len(c.Watch) == 0 {
		bad(".watch is missing: name the tables whose changes touch this module")
	}
	for i, w := range c.Watch {
		if err := tableName(w.Table); err != nil {
			bad(".watch[%d].table %w", i, err)
		}
		if w.MaxKeys < 0 {
			bad(".watch[%d].max_keys %d: want a number above zero", i, w.MaxKeys)
		}
		if (w.Key == "") == (w.Keys == "") {
			bad(".watch[%d]: give exactly one of key and keys", i)
		} else if w.Key != "" {
			if t, err := parseTemplate(w.Key); err != nil {
				bad(".watch[%d].key: %w", i, err)
			} else if t.single() == "" {
				bad(".watch[%d].key %q: want one column, such as \"{id}\"", i, w.Key)
			}
		} else if _, err := parseStatement(w.Keys); err != nil {
			bad(".watch[%d].keys %w", i, err)
		}
	}
	return errs
}

func tableName(s string) error {
	if schema, table, ok := strings.Cut(s, "."); !ok || schema == "" || table == "" {
		return fmt.Errorf("%q: want schema.table", s)
	}
	return nil
}

func keysQuery(q string) error {
	if q == "" {
		return errors.New("is missing")
	}
	s, err := parseStatement(q)
	if err != nil {
		return err
	}
	if len(s.params) != 1 || s.params[0] != "keys" {
		return errors.New("must contain :keys once, as in WHERE id IN (:keys), and no other parameter")
	}
	return nil
}
