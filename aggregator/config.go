package aggregator

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Policies of a module for a failing load on a web node.
const (
	OnErrorKeep     = "keep"
	OnErrorOptional = "optional"
)

// Defaults of [ModuleConfig].
const (
	DefaultTTL          = 24 * time.Hour
	DefaultRefresh      = time.Minute
	DefaultEmptyTTL     = 30 * time.Second
	DefaultEmptyRefresh = 10 * time.Second
	DefaultMaxStale     = 5 * time.Second
)

// ModuleConfig is what an operator writes about one module.
type ModuleConfig struct {
	// Name is part of every key: lower-case letters, digits, _ and -. Required.
	Name string `mapstructure:"name"`
	// Version is the key space's; a bump leaves the old entries to age out.
	//
	// Defaults to 1.
	Version uint16 `mapstructure:"version"`
	// Key is a template over columns, such as "{id}" or "{film_id}:{store_id}".
	// Required.
	Key string `mapstructure:"key"`
	// From takes the value from the changed row itself. Exactly one of From and
	// Rebuild is set.
	From *FromConfig `mapstructure:"from"`
	// Rebuild assembles the value by queries.
	Rebuild *RebuildConfig `mapstructure:"rebuild"`
	// Watch says which changes touch which keys of a rebuild module.
	Watch []WatchConfig `mapstructure:"watch"`
	// TTL is the hard age of an entry in Redis, from its last write; 0 in the file
	// means the default.
	//
	// Defaults to 24h.
	TTL time.Duration `mapstructure:"ttl"`
	// Refresh is the age past which a node refreshes a value behind a read.
	//
	// Defaults to 1m.
	Refresh time.Duration `mapstructure:"refresh"`
	// Empty holds the same two for EMPTY entries.
	//
	// Defaults to {ttl: 30s, refresh: 10s}.
	Empty EmptyConfig `mapstructure:"empty"`
	// OnError is keep (serve the last value) or optional (serve nothing).
	//
	// Defaults to keep.
	OnError string `mapstructure:"on_error"`
	// MaxStale bounds the age a node may serve while the bus is silent.
	//
	// Defaults to 5s.
	MaxStale time.Duration `mapstructure:"max_stale"`
}

// EmptyConfig holds the times of EMPTY entries.
type EmptyConfig struct {
	TTL     time.Duration `mapstructure:"ttl"`
	Refresh time.Duration `mapstructure:"refresh"`
}

// FromConfig names the table whose rows are the values.
type FromConfig struct {
	// Table is schema.table. Required.
	Table string `mapstructure:"table"`
	// Columns are the ones to keep, in the value's order; empty keeps all.
	Columns []string `mapstructure:"columns"`
}

// RebuildConfig holds the queries that assemble a document. Each contains
// ":keys", which becomes a list of keys: WHERE id IN (:keys).
type RebuildConfig struct {
	// One yields at most one row per key, with the key in the column `$key` or, if
	// there is none of that name, in the first. Its columns are the document's
	// fields. A key without a row becomes an EMPTY entry. Required.
	One string `mapstructure:"one"`
	// Many yield lists: the rows of each, by `$key` (or first column), become the
	// named field. A list, not a map, because names must keep their case.
	Many []ManyConfig `mapstructure:"many"`
}

// ManyConfig is one list of a document.
type ManyConfig struct {
	Name  string `mapstructure:"name"`
	Query string `mapstructure:"query"`
}

// WatchConfig says what a change of a table means for a rebuild module.
type WatchConfig struct {
	// Table is schema.table. Required.
	Table string `mapstructure:"table"`
	// Columns narrows updates to those that change one of these; empty: any.
	Columns []string `mapstructure:"columns"`
	// Key is a template over the changed row that yields the touched key. One of
	// Key and Keys is set.
	Key string `mapstructure:"key"`
	// Keys is a query that yields the touched keys; ":name" stands for a column of
	// the changed row.
	Keys string `mapstructure:"keys"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (c ModuleConfig) WithDefaults() ModuleConfig {
	if c.Version == 0 {
		c.Version = 1
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Refresh == 0 {
		c.Refresh = DefaultRefresh
	}
	if c.Empty.TTL == 0 {
		c.Empty.TTL = DefaultEmptyTTL
	}
	if c.Empty.Refresh == 0 {
		c.Empty.Refresh = DefaultEmptyRefresh
	}
	if c.OnError == "" {
		c.OnError = OnErrorKeep
	}
	if c.MaxStale == 0 {
		c.MaxStale = DefaultMaxStale
	}
	return c
}

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
	if c.TTL < 0 || c.Refresh < 0 || c.Empty.TTL < 0 || c.Empty.Refresh < 0 || c.MaxStale < 0 {
		bad(": a duration is negative; ttl, refresh, empty and max_stale count up from zero")
	}
	if c.OnError != OnErrorKeep && c.OnError != OnErrorOptional {
		bad(".on_error %q: want keep or optional", c.OnError)
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
	for i, col := range c.From.Columns {
		if slices.Contains(c.From.Columns[:i], col) {
			errs = append(errs, fmt.Errorf(".from.columns: %q is listed twice", col))
		}
	}
	return errs
}

func (c ModuleConfig) rebuildFaults() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if t, err := parseTemplate(c.Key); err == nil && t.single() == "" {
		bad(".key %q: a rebuild module's key is one column, such as \"{id}\"", c.Key)
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
