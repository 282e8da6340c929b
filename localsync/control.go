package localsync

import (
	"errors"
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/rowtide/rowtide"
)

// live is what the daemon may change of a module while the node runs. Readers
// load single words, so that following the daemon costs them nothing (race R23).
type live struct {
	// policy is what is in force: the code's own with the daemon's settings over it.
	policy atomic.Pointer[policy]
	// generation is the module's, since the version from which on all values are
	// of it (zero: not known). Entries verified before turnedAt, when this node
	// heard of it, may be of an older one; putting all of them in doubt is one
	// store. since is stored first and turnedAt last: whoever still saw the older
	// generation began before turnedAt.
	generation atomic.Uint32
	since      atomic.Uint64
	turnedAt   atomic.Int64
	// announcedAt is when this node heard, before the module was declared, that the
	// daemon writes its version: what changed before was told of another key space.
	announcedAt int64
	// left is set while the daemon writes and announces another version's key space.
	left atomic.Bool
}

// rules is the policy in force. Name, version, batch and timeout never change.
func (m *core) rules() *policy { return m.live.policy.Load() }

// silent reports whether nothing is heard of the module's keys in a partition.
func (m *core) silent(part uint16, now int64) bool {
	return m.live.left.Load() || m.c.silent(part, now)
}

// informed is false for what nothing is heard of, see Cache.informed.
func (m *core) informed(part uint16) bool {
	return !m.live.left.Load() && m.c.informed(part)
}

// follow takes over what the daemon says of the module. After an error the settings
// are those from before. What it says of key spaces holds for pinned settings too.
func (m *core) follow(mc *rowtide.ModuleControl) error {
	m.compare(mc.Version)
	if mc.Generation > m.live.generation.Load() {
		m.live.since.Store(uint64(mc.Since))
		m.live.generation.Store(mc.Generation)
		raise(&m.live.turnedAt, m.c.now())
	}
	p, err := m.policy, error(nil)
	if !p.pinned {
		if p, err = p.with(&mc.Settings); err != nil {
			p = *m.rules()
		}
	}
	p.previous = m.policy.previous
	if mc.Version == p.version {
		p.previous = mc.Previous
	}
	m.live.policy.Store(&p)
	return err
}

// compare takes note of the key space that the daemon writes; zero is not told.
func (m *core) compare(announced uint16) {
	left := announced != m.policy.version
	if announced == 0 || left == m.live.left.Load() {
		return
	}
	if left {
		m.c.opt.Logger.Warn("the daemon writes another version of the module: this one is degraded, entries past max_stale are checked against redis",
			"module", m.policy.name, "version", m.policy.version, "daemon", announced, "remedy", "declare the daemon's version")
	} else {
		// Nothing was told of it meanwhile.
		raise(&m.live.turnedAt, m.c.now())
		m.c.opt.Logger.Info("the daemon writes this version of the module again", "module", m.policy.name, "version", announced)
	}
	m.live.left.Store(left)
}

// current reports whether a value of this version that came by push is of the
// module's generation.
func (m *core) current(v rowtide.Version) bool {
	if m.live.generation.Load() == 0 {
		return true
	}
	since := m.live.since.Load()
	return since > 0 && uint64(v) >= since
}

// with is p with the daemon's settings over it.
func (p policy) with(s *rowtide.ModuleSettings) (policy, error) {
	override(&p.value.TTL, s.TTL)
	override(&p.value.Refresh, s.Refresh)
	override(&p.empty.TTL, s.EmptyTTL)
	override(&p.empty.Refresh, s.EmptyRefresh)
	override(&p.maxStale, s.MaxStale)
	switch s.OnError {
	case "":
	case "keep":
		p.onError = KeepLast
	case "optional":
		p.onError = Optional
	default:
		return p, fmt.Errorf("on_error %q is neither keep nor optional", s.OnError)
	}
	return p, p.validate()
}

func override[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

// control applies one record of the control topic; an empty value takes the
// daemon's settings back. Settings that cannot be used are told and change nothing; the
// generation and the version count all the same.
func (c *Cache) control(key string, value []byte) {
	if len(value) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		next := maps.Clone(c.controls)
		delete(next, key)
		c.controls = next
		for _, m := range c.named(key) {
			m.live.policy.Store(&m.policy)
			m.compare(m.policy.version)
		}
		return
	}
	mc, err := rowtide.DecodeControl(value)
	understood := err == nil
	if understood {
		err = c.obey(&mc)
	}
	if err != nil {
		c.opt.Logger.Warn("module settings of the daemon are not usable, keeping those in force", "module", key, "error", err)
	}
	if understood {
		c.opt.Observer.Controlled(mc)
	}
}

// announced is what the daemon says of a module, and when this node heard that it
// writes that version of it.
type announced struct {
	rowtide.ModuleControl
	at int64
}

func (c *Cache) obey(mc *rowtide.ModuleControl) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := maps.Clone(c.controls)
	at := c.now()
	if known, ok := next[mc.Name]; ok && known.Version == mc.Version {
		at = known.at
	}
	next[mc.Name] = announced{*mc, at}
	c.controls = next
	var errs []error
	for _, m := range c.named(mc.Name) {
		if err := m.follow(mc); err != nil {
			errs = append(errs, fmt.Errorf("version %d: %w", m.policy.version, err))
		}
	}
	return errors.Join(errs...)
}

// named are the declared versions of a module.
func (c *Cache) named(name string) []*core {
	var out []*core
	for id, m := range *c.modules.Load() {
		if id.name == name {
			out = append(out, m)
		}
	}
	return out
}
