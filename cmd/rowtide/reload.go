package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/config"
)

// reloadPoll is how often the config file is looked at. Its bytes are compared:
// that notices what mounted volumes and editors do to files, which events of the
// file system do not always.
const reloadPoll = time.Second

// reloader takes changes of the config file over while the daemon runs: whole or
// not at all.
type reloader struct {
	d    *daemon
	path string

	mu   sync.Mutex // one reload at a time
	seen [sha256.Size]byte
}

func newReloader(d *daemon, path string) *reloader {
	r := &reloader{d: d, path: path}
	r.look()
	return r
}

// look reports whether the file differs from when it was last looked at.
func (r *reloader) look() bool {
	b, err := os.ReadFile(r.path)
	if err != nil {
		return false // in the middle of being replaced; the next look tells
	}
	sum := sha256.Sum256(b)
	if bytes.Equal(sum[:], r.seen[:]) {
		return false
	}
	r.seen = sum
	return true
}

// run follows the file until ctx ends.
func (r *reloader) run(ctx context.Context) {
	t := time.NewTicker(reloadPoll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r.mu.Lock()
		changed := r.look()
		r.mu.Unlock()
		if !changed {
			continue
		}
		if _, err := r.reload(ctx); err != nil && ctx.Err() == nil {
			r.d.log.Error("the changed config file is refused, the modules in force stay", "file", r.path, "err", err)
		}
	}
}

// adopt checks compiled modules against the servers, tells the nodes of them and
// puts them in force. An error means that those of before stay.
func (d *daemon) adopt(ctx context.Context, modules []*aggregator.Module, what change) error {
	if err := d.checkModules(ctx, modules); err != nil {
		return err
	}
	tables := aggregator.Tables(modules)
	// First both the old tables and the new ones: a transaction that is already
	// decoded must hold what the modules want that it will be handed to.
	if err := d.watchTables(ctx, append(aggregator.Tables(d.pipe.modules()), tables...)); err != nil {
		return err
	}
	if err := d.nodes.announce(ctx, modules); err != nil {
		return err
	}
	if err := d.pipe.swap(ctx, modules); err != nil {
		return err
	}
	return d.fillNew(ctx, modules, what)
}

// checkModules asks the source and its database whether the modules can work.
func (d *daemon) checkModules(ctx context.Context, modules []*aggregator.Module) error {
	needs, queries := needsOf(modules)
	src := d.cfg.Source
	if src.Addr == "" {
		return nil // a feed without a database
	}
	s := binlog.New(src.Config, aggregator.Tables(modules), d.log, binlog.NopObserver{})
	defer s.Close() //nolint:errcheck // connections for questions
	if src.Kind == config.KindKafka {
		return s.PreflightQueries(ctx, needs, queries)
	}
	return s.Preflight(ctx, needs, queries)
}

// watchTables makes the source decode these tables.
func (d *daemon) watchTables(ctx context.Context, tables []string) error {
	if d.feed == nil {
		return d.source.Watch(ctx, tables)
	}
	known := aggregator.Tables(d.pipe.modules())
	for _, t := range tables {
		if !slices.Contains(known, t) {
			return fmt.Errorf("table %s: a feed takes new tables up only at a start; restart the daemon", t)
		}
	}
	return nil
}

// fillNew asks for a backfill of the modules whose values Redis does not have.
func (d *daemon) fillNew(ctx context.Context, modules []*aggregator.Module, what change) error {
	byTable := map[string][]string{}
	var inForce []string
	for _, m := range modules {
		inForce = append(inForce, idOf(m))
		if c := m.Config(); slices.Contains(what.refill, c.Name) {
			byTable[m.Table()] = append(byTable[m.Table()], moduleID(c.Name, c.Version))
		}
	}
	if len(byTable) == 0 {
		return nil
	}
	if d.feed != nil || !*d.cfg.Source.Backfill.Auto {
		d.log.Warn("new values come with the next change of each row only, since nothing backfills by itself here; run rowtide backfill", "modules", what.refill)
		return nil
	}
	requests := d.source.Backfills(backfillName(d.cfg))
	if err := requests.Abandon(ctx, inForce); err != nil {
		return fmt.Errorf("the modules are in force, but not filled: %w", err)
	}
	for _, table := range slices.Sorted(maps.Keys(byTable)) {
		if _, err := requests.Add(ctx, binlog.BackfillRequest{Modules: byTable[table], Table: table}); err != nil {
			return fmt.Errorf("the modules are in force, but not filled: %w", err)
		}
	}
	return nil
}

// change is what a reload did, by module.
type change struct {
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Changed []string `json:"changed,omitempty"`

	refill []string // whose values Redis does not have
}

func (c change) none() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) == 0 }

// reload reads the file and puts its modules in force. An error means that
// nothing has changed.
func (r *reloader) reload(ctx context.Context) (change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, err := config.Load(r.path)
	if err != nil {
		return change{}, err
	}
	if err := onlyModules(r.d.cfg, cfg); err != nil {
		return change{}, err
	}
	what := compare(r.d.pipe.modules(), cfg.Modules)
	if what.none() {
		return what, nil
	}
	modules, err := aggregator.Compile(cfg.Modules)
	if err != nil {
		return change{}, err
	}
	if err := r.d.adopt(ctx, modules, what); err != nil {
		return change{}, config.Locate(r.path, err)
	}
	r.d.log.Info("modules reloaded", "added", what.Added, "removed", what.Removed, "changed", what.Changed)
	return what, nil
}

// onlyModules refuses a file that changes what cannot change while the daemon
// runs.
func onlyModules(old, next config.Config) error {
	var errs []error
	a, b := reflect.ValueOf(old), reflect.ValueOf(next)
	for i := range a.NumField() {
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("mapstructure"), ",")
		if name != "modules" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			errs = append(errs, fmt.Errorf("%s: only modules can change while the daemon runs; restart it to change this", name))
		}
	}
	return errors.Join(errs...)
}

// compare says what differs between the modules in force and those of a file.
func compare(old []*aggregator.Module, next []aggregator.ModuleConfig) change {
	var c change
	was := map[string]aggregator.ModuleConfig{}
	for _, m := range old {
		was[m.Config().Name] = m.Config()
	}
	for _, m := range next {
		before, there := was[m.Name]
		delete(was, m.Name)
		switch {
		case !there:
			c.Added = append(c.Added, m.Name)
			c.refill = append(c.refill, m.Name)
		case !reflect.DeepEqual(before, m):
			c.Changed = append(c.Changed, m.Name)
			if !reflect.DeepEqual(valuesOf(before), valuesOf(m)) {
				c.refill = append(c.refill, m.Name)
			}
		}
	}
	for _, m := range old { // in the order of the file
		if _, gone := was[m.Config().Name]; gone {
			c.Removed = append(c.Removed, m.Config().Name)
		}
	}
	return c
}

// valuesOf is the part of a module's config that its values depend on.
func valuesOf(m aggregator.ModuleConfig) aggregator.ModuleConfig {
	return aggregator.ModuleConfig{
		Version: m.Version, Key: m.Key, From: m.From, Rebuild: m.Rebuild, Codec: m.Codec, Layout: m.Layout,
	}
}
