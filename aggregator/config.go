package aggregator

import (
	"cmp"
	"slices"
	"time"
)

// Policies of a module for a failing load on a web node.
const (
	OnErrorKeep     = "keep"
	OnErrorOptional = "optional"
)

// Policies of a module for a change that cannot be applied.
const (
	OnFaultHalt     = "halt"
	OnFaultSetAside = "set_aside"
)

// Codecs and layouts.
const (
	CodecJSON    = "json"
	CodecMsgpack = "msgpack"
	CodecRaw     = "raw"

	LayoutEnvelope = "envelope"
	LayoutPlain    = "plain"
)

// Defaults of [ModuleConfig].
const (
	DefaultTTL          = 24 * time.Hour
	DefaultRefresh      = time.Minute
	DefaultEmptyTTL     = 30 * time.Second
	DefaultEmptyRefresh = 10 * time.Second
	DefaultMaxStale     = 5 * time.Second
	DefaultTTLJitter    = 0.1
	DefaultMaxValue     = 1 << 20
	DefaultMaxKeys      = 10_000
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
	// TTLJitter lengthens each key's TTL by a share of up to this much of it,
	// fixed by the key's name, so that entries written together do not end
	// together.
	//
	// Defaults to 0.1; a negative value is none.
	TTLJitter float64 `mapstructure:"ttl_jitter"`
	// Codec is the payload's form: json, msgpack (the same document), or raw (the
	// bytes of the only column; from modules).
	//
	// Defaults to json.
	Codec string `mapstructure:"codec"`
	// Layout is what Redis holds under the key: envelope, or plain (the bare
	// payload, with the envelope's head under a second key).
	//
	// Defaults to envelope.
	Layout string `mapstructure:"layout"`
	// Push sends values of at most 1 KB with their invalidation, so that nodes need
	// not read Redis.
	Push bool `mapstructure:"push"`
	// Window gathers changes for so long before they are written: fewer writes of
	// hot keys for a later cache. 0 writes as soon as the previous write has left.
	Window time.Duration `mapstructure:"window"`
	// OnFault says what a change does that cannot be applied: halt ends the daemon
	// before it, set_aside puts it among the dead letters and goes on.
	//
	// Defaults to halt.
	OnFault string `mapstructure:"on_fault"`
	// MaxValue is the largest payload in bytes; a larger one is a fault.
	//
	// Defaults to 1 MiB.
	MaxValue int `mapstructure:"max_value"`
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
	// Columns are the ones to keep, in the value's order; empty keeps all. "title_de
	// AS title" keeps a column under another name.
	Columns []string `mapstructure:"columns"`
	// Where is an expression over the row's columns; a row for which it is not true
	// is not there for this module: its key holds an EMPTY entry.
	Where string `mapstructure:"where"`
	// Fields are computed from the row and come after the columns.
	Fields []FieldConfig `mapstructure:"fields"`
}

// FieldConfig is a computed field of a value.
type FieldConfig struct {
	Name string `mapstructure:"name"`
	// Expr is an expression over the row's columns.
	Expr string `mapstructure:"expr"`
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
	// MaxKeys bounds how many keys one change may touch through Keys. Past it the
	// module's generation is raised instead: every entry is read again when it is
	// asked for.
	//
	// Defaults to 10000.
	MaxKeys int `mapstructure:"max_keys"`
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
	if c.TTLJitter == 0 {
		c.TTLJitter = DefaultTTLJitter
	}
	c.Codec = cmp.Or(c.Codec, CodecJSON)
	c.Layout = cmp.Or(c.Layout, LayoutEnvelope)
	c.OnFault = cmp.Or(c.OnFault, OnFaultHalt)
	c.MaxValue = cmp.Or(c.MaxValue, DefaultMaxValue)
	c.Watch = slices.Clone(c.Watch)
	for i := range c.Watch {
		c.Watch[i].MaxKeys = cmp.Or(c.Watch[i].MaxKeys, DefaultMaxKeys)
	}
	return c
}
