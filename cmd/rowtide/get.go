package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/config"
)

// States of a key, as get names them.
const (
	stateValue      = "value"
	stateEmpty      = "empty"
	stateAbsent     = "absent"
	stateUnreadable = "unreadable"
)

// gotten is what get prints.
type gotten struct {
	Module   string `json:"module"`
	ID       string `json:"id"`
	RedisKey string `json:"redis_key"`
	Layout   string `json:"layout"`
	Codec    string `json:"codec"`

	State   string `json:"state"`
	Problem string `json:"problem,omitempty"` // of what is unreadable
	Deleted bool   `json:"deleted,omitempty"` // EMPTY because of a change, not of a look-up
	// Source is change or fill; empty when it is not known.
	Source string `json:"source,omitempty"`

	Version    rowtide.Version `json:"version,string"`
	Position   string          `json:"position,omitempty"`
	Epoch      uint32          `json:"epoch"`
	Generation *uint32         `json:"generation,omitempty"`
	BuiltAt    *time.Time      `json:"built_at,omitempty"`
	AgeSeconds *float64        `json:"age_seconds,omitempty"`
	// TTLSeconds is what is left; nil: it never ends, or TTLProblem says why it is
	// not known.
	TTLSeconds *float64 `json:"ttl_seconds,omitempty"`
	TTLProblem string   `json:"ttl_problem,omitempty"`
	Bytes      int      `json:"bytes"`
	Value      any      `json:"value,omitempty"`

	Database *databaseSays `json:"database,omitempty"`
}

// databaseSays is what get --db adds.
type databaseSays struct {
	State   string `json:"state"` // value, absent, or unreadable
	Problem string `json:"problem,omitempty"`
	Value   any    `json:"value,omitempty"`
	Agrees  bool   `json:"agrees"`
}

func newGet() *cobra.Command {
	var path string
	var asJSON, withDB bool
	c := &cobra.Command{
		Use:   "get MODULE KEY",
		Short: "Show what Redis holds for one key; exit code 4 when it is not there, or with --db differs",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &usageError{fmt.Errorf("%s wants a module and a key, such as: rowtide get event 42", c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) (err error) {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if err := knownModules(cfg.Modules, args[:1]); err != nil {
				return err
			}
			quietLibraries()
			d := newDaemon(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
			defer func() { err = errors.Join(err, d.close()) }()
			g, err := d.get(c.Context(), args[0], args[1], withDB)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetEscapeHTML(false)
				err = enc.Encode(g)
			} else {
				err = g.print(c.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return g.verdict()
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&withDB, "db", false, "ask the database too, and compare")
	return c
}

var errNotThere = errors.New("there is no such entry")

// verdict is what the exit code tells.
func (g *gotten) verdict() error {
	switch {
	case g.Database != nil && g.Database.Agrees:
		return nil
	case g.Database != nil:
		return fmt.Errorf("%w: %s", errDiffers, g.RedisKey)
	case g.State == stateAbsent:
		return fmt.Errorf("%w: %s", errNotThere, g.RedisKey)
	}
	return nil
}

// get reads one key. It connects to Redis only, and with withDB to the source.
func (d *daemon) get(ctx context.Context, module, id string, withDB bool) (*gotten, error) {
	modules, err := aggregator.Compile(d.cfg.Modules)
	if err != nil {
		return nil, err
	}
	var m *aggregator.Module
	for _, one := range modules {
		if one.Config().Name == module {
			m = one
		}
	}
	d.rdb = newRedisClient(d.cfg.Redis)
	if err := checkRedis(ctx, d.rdb, d.cfg.Redis); err != nil {
		return nil, err
	}
	c := &check{verifier: &verifier{rdb: d.rdb, prefix: d.cfg.Redis.Prefix}, m: m, r: &moduleReport{Module: module}}
	got, err := c.read(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	g := d.gotten(ctx, c, id, &got[0])
	if withDB {
		g.Database, err = d.askDatabase(ctx, m, id, &got[0])
	}
	return g, err
}

func (d *daemon) gotten(ctx context.Context, c *check, id string, s *stored) *gotten {
	cfg := c.m.Config()
	g := &gotten{
		Module: cfg.Name, ID: id, RedisKey: c.key(id).Redis(d.cfg.Redis.Prefix), Layout: cfg.Layout, Codec: cfg.Codec,
		State: stateValue, Version: s.Version, Epoch: s.Version.Epoch(), Bytes: len(s.raw),
	}
	switch {
	case !s.there:
		g.State = stateAbsent
		return g
	case s.err != nil:
		g.State, g.Problem = stateUnreadable, s.err.Error()
	case s.Empty():
		g.State, g.Deleted = stateEmpty, s.Flags&rowtide.FlagDeleted != 0
	}
	if s.Version != 0 {
		g.Position = d.positionOf(ctx, s.Version)
	}
	if s.err == nil && !s.bare {
		g.Source = "change"
		if s.Flags&rowtide.FlagFill != 0 {
			g.Source = "fill"
		}
	}
	if s.err == nil && cfg.Layout == aggregator.LayoutEnvelope {
		age := time.Since(s.BuiltAt).Seconds()
		g.Generation, g.BuiltAt, g.AgeSeconds = &s.Generation, &s.BuiltAt, &age
	}
	ttl, err := d.rdb.PTTL(ctx, g.RedisKey).Result()
	switch {
	case err != nil:
		g.TTLProblem = err.Error()
	case ttl >= 0:
		left := ttl.Seconds()
		g.TTLSeconds = &left
	}
	if g.State == stateValue {
		g.Value = document(cfg.Codec, s.Payload)
	}
	return g
}

// positionOf names the place in the log that a version is of. The version has only
// the number of the file; the daemon's checkpoint knows what files are called.
func (d *daemon) positionOf(ctx context.Context, v rowtide.Version) string {
	name := fmt.Sprintf("log file %d", v.File())
	if store, err := d.checkpointStore(); err == nil && d.cfg.Source.Kind == config.KindBinlog {
		ckpt, err := store.Load(ctx)
		if err == nil && ckpt != nil && ckpt.Epoch == v.Epoch() {
			if dot := strings.LastIndexByte(ckpt.File, '.'); dot >= 0 {
				name = fmt.Sprintf("%s.%0*d", ckpt.File[:dot], len(ckpt.File)-dot-1, v.File())
			}
		}
	}
	return fmt.Sprintf("%s:%d", name, v.Pos())
}

// document is a payload for JSON: a document as it is, anything else as text.
func document(codec string, payload []byte) any {
	text := readable(codec, payload)
	if codec != aggregator.CodecRaw && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

func (d *daemon) askDatabase(ctx context.Context, m *aggregator.Module, id string, got *stored) (*databaseSays, error) {
	d.modules = []*aggregator.Module{m}
	needs, queries := needsOf(d.modules)
	if err := d.preflightSource(ctx, needs, queries); err != nil {
		return nil, err
	}
	if err := d.needDatabase("get --db"); err != nil {
		return nil, err
	}
	c, err := (&verifier{db: d.source.Reader(), rdb: d.rdb, prefix: d.cfg.Redis.Prefix}).check(ctx, m)
	if err != nil {
		return nil, err
	}
	wants, err := c.of(ctx, []string{id}, false)
	if err != nil {
		return nil, err
	}
	want := wants[0]
	out := &databaseSays{State: stateAbsent, Agrees: c.differ(want, got) == nil}
	switch {
	case want.Err != nil:
		out.State, out.Problem = stateUnreadable, want.Err.Error()
	case want.Payload != nil:
		out.State, out.Value = stateValue, document(m.Config().Codec, want.Payload)
	}
	return out, nil
}

func (g *gotten) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	line("redis key", "%s", g.RedisKey)
	line("layout", "%s, codec %s", g.Layout, g.Codec)
	line("state", "%s", g.describe())
	if g.State != stateAbsent {
		if g.Version != 0 {
			line("version", "%s, the change that ends at %s of epoch %d", g.Version, g.Position, g.Epoch)
		} else {
			line("version", "none is known")
		}
		if g.Source != "" {
			line("source", "%s", map[string]string{"change": "a change, from the log", "fill": "a fill, loaded by a node"}[g.Source])
		}
		if g.BuiltAt != nil {
			age := time.Duration(*g.AgeSeconds * float64(time.Second)).Round(time.Millisecond)
			line("built at", "%s, %s ago", g.BuiltAt.Format(time.RFC3339Nano), age)
			line("generation", "%d", *g.Generation)
		}
		line("ttl", "%s", g.ttl())
		line("size", "%d bytes", g.Bytes)
	}
	if g.State == stateValue {
		line("value", "%s", asText(g.Value))
	}
	if db := g.Database; db != nil {
		word := map[bool]string{true: "agrees", false: "DIFFERS"}[db.Agrees]
		switch db.State {
		case stateValue:
			line("database", "%s: %s", word, asText(db.Value))
		case stateAbsent:
			line("database", "%s: no such row, or the module's filter leaves it out", word)
		default:
			line("database", "%s: the row cannot be a value: %s", word, db.Problem)
		}
	}
	return t.Flush()
}

func (g *gotten) describe() string {
	switch {
	case g.State == stateUnreadable:
		return "NOT READABLE: " + g.Problem
	case g.State == stateEmpty && g.Deleted:
		return "EMPTY, the row was deleted or left the module"
	case g.State == stateEmpty:
		return "EMPTY, a node found no row"
	}
	return g.State
}

func (g *gotten) ttl() string {
	switch {
	case g.TTLProblem != "":
		return "not known: " + g.TTLProblem
	case g.TTLSeconds == nil:
		return "none, it stays"
	}
	return time.Duration(*g.TTLSeconds*float64(time.Second)).Round(time.Millisecond).String() + " left"
}

func asText(v any) string {
	if raw, ok := v.(json.RawMessage); ok {
		return string(raw)
	}
	return fmt.Sprint(v)
}
