package sidecar

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// Module names a key space to serve.
type Module struct {
	Name    string
	Version uint16
	// Codec is "json", "msgpack" or "raw"; it makes the content type over HTTP.
	Codec string
}

// Modules are the key spaces of one cache: those given at first and those that
// the daemon tells of. It is the cache's Observer until and after the cache opens.
type Modules struct {
	localsync.NopObserver
	prefix string // of full Redis keys, with its colon
	log    *slog.Logger

	known atomic.Pointer[map[string]*space]

	mu      sync.Mutex
	cache   *localsync.Cache
	pending []Module
}

// space is a module with all its declared versions; the newest answers to the
// plain name.
type space struct {
	current  *module
	versions map[uint16]*module
}

type module struct {
	Module
	values *localsync.Module[string, []byte]
}

// NewModules makes the table; prefix is that of the Redis keys.
func NewModules(prefix string, log *slog.Logger, given ...Module) *Modules {
	m := &Modules{prefix: prefix + ":", log: log, pending: given}
	m.known.Store(&map[string]*space{})
	return m
}

// Serve declares what is known so far on the cache, and from then on whatever the
// daemon tells of.
func (m *Modules) Serve(c *localsync.Cache) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache = c
	for _, mod := range m.pending {
		if err := m.declare(mod); err != nil {
			return err
		}
	}
	m.pending = nil
	return nil
}

// Controlled implements localsync.Observer.
func (m *Modules) Controlled(mc rowtide.ModuleControl) {
	mod := Module{Name: mc.Name, Version: max(mc.Version, 1), Codec: mc.Settings.Codec}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cache == nil {
		m.pending = append(m.pending, mod)
		return
	}
	if err := m.declare(mod); err != nil {
		m.log.Warn("a module of the daemon cannot be served", "module", mod.Name, "error", err)
	}
}

// declare adds a module or makes its version the current one; m.mu is held.
// Readers see the table before or after.
func (m *Modules) declare(mod Module) error {
	next := maps.Clone(*m.known.Load())
	sp := &space{versions: map[uint16]*module{}}
	if old, ok := next[mod.Name]; ok {
		if mod.Codec == "" {
			mod.Codec = old.current.Codec
		}
		sp.versions = maps.Clone(old.versions)
	}
	sp.current = &module{Module: mod}
	if have, ok := sp.versions[mod.Version]; ok {
		sp.current.values = have.values
	} else {
		// No loader: what Redis lacks is absent, the daemon alone makes values. While it
		// fills a new key space it has the old one read.
		values, err := localsync.NewModule(m.cache, localsync.ModuleConfig[string]{Name: mod.Name, Version: mod.Version},
			localsync.Bytes(), (func(context.Context, []string) (map[string][]byte, error))(nil))
		if err != nil {
			return err
		}
		sp.current.values = values
	}
	sp.versions[mod.Version] = sp.current
	next[mod.Name] = sp
	m.known.Store(&next)
	return nil
}

// names are those of all modules, sorted.
func (m *Modules) names() []string { return slices.Sorted(maps.Keys(*m.known.Load())) }

// named finds a module by its plain name.
func (m *Modules) named(name string) (*module, error) {
	if sp, ok := (*m.known.Load())[name]; ok {
		return sp.current, nil
	}
	return nil, m.unknown(name)
}

func (m *Modules) unknown(name string) error {
	names := m.names()
	if len(names) == 0 {
		return fmt.Errorf("no module is known yet: start the rowtide daemon, or list modules in the node's config")
	}
	return fmt.Errorf("no module %s: want module:id with one of %s", strconv.Quote(clip(name)), strings.Join(names, ", "))
}

// clip keeps what a client sent from filling a reply or the log.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// find splits a key as clients write it, "module:id" or the full Redis key
// "prefix:module:version:id".
func (m *Modules) find(key []byte) (*module, string, error) {
	known := *m.known.Load()
	if rest, ok := bytes.CutPrefix(key, []byte(m.prefix)); ok {
		name, rest, ok1 := bytes.Cut(rest, []byte{':'})
		version, id, ok2 := bytes.Cut(rest, []byte{':'})
		if sp := known[string(name)]; ok1 && ok2 && sp != nil {
			if n, err := strconv.ParseUint(string(version), 10, 16); err == nil {
				if mod, ok := sp.versions[uint16(n)]; ok {
					return mod, string(id), nil
				}
				return nil, "", fmt.Errorf("module %s has version %d here, not %d", name, sp.current.Version, n)
			}
		}
	}
	name, id, _ := bytes.Cut(key, []byte{':'})
	sp, ok := known[string(name)]
	if !ok {
		return nil, "", m.unknown(string(name))
	}
	return sp.current, string(id), nil
}
