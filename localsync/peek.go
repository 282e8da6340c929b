package localsync

import (
	"time"

	"github.com/rowtide/rowtide"
)

// Peek is the entry that a read of k would be served from the local level at this
// instant. It loads nothing, refreshes nothing and counts nothing, so an auditor
// can look without disturbing. False means that a read would go further: there is
// nothing, or it is past its age, or it must be checked first because a newer
// state was heard of or records were missed.
func (c *Cache) Peek(k rowtide.Key) (rowtide.Entry, bool) {
	e, _, ok := c.peek(k)
	return e, ok
}

// Left is how long the entry that Peek gives may still be served before its hard age,
// by this node's clock and the settings in force; each refresh makes it longer. False
// means that Peek gives none.
func (c *Cache) Left(k rowtide.Key) (time.Duration, bool) {
	_, left, ok := c.peek(k)
	return left, ok
}

func (c *Cache) peek(k rowtide.Key) (e rowtide.Entry, left time.Duration, ok bool) {
	m, ok := (*c.modules.Load())[moduleID{k.Module, k.Version}]
	if !ok {
		return rowtide.Entry{}, 0, false
	}
	name := appendLocalName(nil, k)
	envelope, row, ok := c.store.read(name, nameHash(name), 0)
	if !ok || row.has(metaDegraded) {
		return rowtide.Entry{}, 0, false
	}
	now := c.now()
	if v, stale := m.judge(&row, now, 0, m.silent(row.part, now)); stale || v != serve && v != renew {
		return rowtide.Entry{}, 0, false
	}
	e, err := rowtide.DecodeEnvelope(k, envelope)
	if err != nil {
		return rowtide.Entry{}, 0, false
	}
	// The row may be ahead of the bytes: a newer version with the same payload is
	// not written again.
	e.Version = row.version
	_, hard := m.rules().caps(e.Empty())
	return e, time.Duration(min(row.hardAt(), row.verified+hard) - now), true
}

// Floor is the newest version of k that this node has heard of, zero if none (or
// none lately, see Options.FloorAge): nothing older is served without
// Info.Stale.
func (c *Cache) Floor(k rowtide.Key) rowtide.Version {
	return c.store.floor(nameHash(localName(k)))
}
