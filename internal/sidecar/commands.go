package sidecar

import (
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

// command is one that is served, with what COMMAND tells of it.
type command struct {
	name string
	run  func(c *session, args [][]byte)
	// arity counts the name too; a negative one is a minimum.
	arity int
	// open commands are served before AUTH.
	open bool
	// first, last and step say where keys stand; all zero for none.
	first, last, step int
	group, summary    string
	since             string
}

func (cmd *command) takes(n int) bool {
	return n == cmd.arity || cmd.arity < 0 && n >= -cmd.arity
}

func commandTable() map[string]*command {
	table := map[string]*command{
		"get":     {run: get, arity: 2, first: 1, last: 1, step: 1, group: "string", since: "1.0.0", summary: "Returns the value of a key."},
		"mget":    {run: mget, arity: -2, first: 1, last: -1, step: 1, group: "string", since: "1.0.0", summary: "Returns the values of keys."},
		"exists":  {run: exists, arity: -2, first: 1, last: -1, step: 1, group: "generic", since: "1.0.0", summary: "Counts the keys that have a value."},
		"ttl":     {run: ttl, arity: 2, first: 1, last: 1, step: 1, group: "generic", since: "1.0.0", summary: "Returns how many seconds a value has left."},
		"pttl":    {run: pttl, arity: 2, first: 1, last: 1, step: 1, group: "generic", since: "2.6.0", summary: "Returns how many milliseconds a value has left."},
		"strlen":  {run: strlen, arity: 2, first: 1, last: 1, step: 1, group: "string", since: "2.2.0", summary: "Returns the length of a value."},
		"ping":    {run: ping, arity: -1, group: "connection", since: "1.0.0", summary: "Returns PONG, or its argument."},
		"echo":    {run: echo, arity: 2, group: "connection", since: "1.0.0", summary: "Returns its argument."},
		"select":  {run: selectDB, arity: 2, group: "connection", since: "1.0.0", summary: "Takes 0 only."},
		"auth":    {run: auth, arity: -2, open: true, group: "connection", since: "1.0.0", summary: "Gives the password."},
		"hello":   {run: hello, arity: -1, open: true, group: "connection", since: "6.0.0", summary: "Chooses RESP2 or RESP3."},
		"client":  {run: client, arity: -2, group: "connection", since: "2.4.0", summary: "ID, GETNAME, SETNAME, SETINFO, INFO, LIST."},
		"reset":   {run: reset, arity: 1, open: true, group: "connection", since: "6.2.0", summary: "Makes the connection as new."},
		"quit":    {run: quit, arity: -1, open: true, group: "connection", since: "1.0.0", summary: "Ends the connection."},
		"info":    {run: info, arity: -1, group: "server", since: "1.0.0", summary: "Returns counters for people and monitors."},
		"command": {run: commandInfo, arity: -1, group: "server", since: "2.8.13", summary: "Tells which commands there are."},
	}
	for name, cmd := range table {
		cmd.name = name
	}
	return table
}

const (
	// maxKey is beyond any key that a column of an index can make.
	maxKey = 8 << 10
	// readAtOnce and maxReply bound what one MGET holds in memory.
	readAtOnce = 100
	maxReply   = 64 << 20
)

// find is whose key that is, and its id there.
func (c *session) find(key []byte) (*module, string, error) {
	if len(key) > maxKey {
		return nil, "", fmt.Errorf("a key of %d bytes is too long: at most %d", len(key), maxKey)
	}
	return c.s.modules.find(key)
}

// lookup reads one key; absent is true when it is known to have no value.
func (c *session) lookup(mod *module, id string) (value []byte, absent bool, err error) {
	value, err = mod.values.Get(c.s.life, id)
	switch {
	case err == nil:
		c.s.counts.hits.Add(1)
	case errors.Is(err, localsync.ErrNotFound):
		c.s.counts.misses.Add(1)
		return nil, true, nil
	}
	return value, false, err
}

// one is lookup of a key as clients write it.
func (c *session) one(key []byte) (value []byte, absent bool, err error) {
	mod, id, err := c.find(key)
	if err != nil {
		return nil, false, err
	}
	return c.lookup(mod, id)
}

// lookupAll reads keys; an absent one is nil. The first error is that of all.
func (c *session) lookupAll(keys [][]byte) ([][]byte, error) {
	out, size := make([][]byte, len(keys)), 0
	for at := 0; at < len(keys); at += readAtOnce {
		end := min(at+readAtOnce, len(keys))
		if err := c.lookupSome(keys[at:end], out[at:end]); err != nil {
			return nil, err
		}
		for _, v := range out[at:end] {
			size += len(v)
		}
		if size > maxReply {
			return nil, fmt.Errorf("the values have more than %d bytes together: ask for fewer keys at a time", maxReply)
		}
	}
	return out, nil
}

func (c *session) lookupSome(keys, out [][]byte) error {
	ids, mods := make([]string, len(keys)), make([]*module, len(keys))
	for i, key := range keys {
		var err error
		if mods[i], ids[i], err = c.find(key); err != nil {
			return err
		}
	}
	hits := 0
	asked := make([]string, 0, len(keys))
	for first, mod := range mods { // nearly always there is but one
		if mod == nil {
			continue // asked with one before
		}
		asked = asked[:0]
		for i := first; i < len(mods); i++ {
			if mods[i] == mod {
				asked = append(asked, ids[i])
			}
		}
		values, err := mod.values.GetMany(c.s.life, asked)
		if err != nil {
			return err
		}
		for i := first; i < len(mods); i++ {
			if mods[i] != mod {
				continue
			}
			mods[i] = nil
			if v, ok := values[ids[i]]; ok {
				hits++
				if out[i] = v; v == nil {
					out[i] = []byte{} // a value without bytes is there all the same
				}
			}
		}
	}
	c.s.counts.hits.Add(int64(hits))
	c.s.counts.misses.Add(int64(len(keys) - hits))
	return nil
}

func get(c *session, args [][]byte) {
	switch value, absent, err := c.one(args[1]); {
	case err != nil:
		c.failErr(err)
	case absent:
		c.null()
	default:
		c.bulk(value)
	}
}

func mget(c *session, args [][]byte) {
	values, err := c.lookupAll(args[1:])
	if err != nil {
		c.failErr(err)
		return
	}
	c.array(len(values))
	for _, v := range values {
		if v == nil {
			c.null()
		} else {
			c.bulk(v)
		}
	}
}

func exists(c *session, args [][]byte) {
	values, err := c.lookupAll(args[1:])
	if err != nil {
		c.failErr(err)
		return
	}
	var n int64
	for _, v := range values {
		if v != nil {
			n++
		}
	}
	c.integer(n)
}

func strlen(c *session, args [][]byte) {
	value, _, err := c.one(args[1])
	if err != nil {
		c.failErr(err)
		return
	}
	c.integer(int64(len(value)))
}

func ttl(c *session, args [][]byte) { c.left(args[1], time.Second) }

func pttl(c *session, args [][]byte) { c.left(args[1], time.Millisecond) }

// Redis's replies for a key that is not there, and one that does not expire.
const (
	ttlAbsent = -2
	ttlNone   = -1
)

// left answers how long a value has until its hard age; a value that this node
// does not keep has none here.
func (c *session) left(key []byte, unit time.Duration) {
	mod, id, err := c.find(key)
	if err != nil {
		c.failErr(err)
		return
	}
	_, absent, err := c.lookup(mod, id)
	switch {
	case err != nil:
		c.failErr(err)
		return
	case absent:
		c.integer(ttlAbsent)
		return
	}
	left, ok := c.s.cache.Left(mod.values.Key(id))
	if !ok {
		c.integer(ttlNone)
		return
	}
	c.integer(int64((left + unit/2) / unit)) // rounded as Redis does
}
