package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// How a key can differ.
const (
	diffMissing = "missing" // the database has a value, Redis has none
	diffStale   = "stale"   // Redis has another value, or an EMPTY entry
	diffExtra   = "extra"   // Redis has a value, the database has none
	diffWrong   = "wrong"   // what Redis has is no entry of the key, or the row cannot be one
)

// difference is one key for which Redis and the database disagree.
type difference struct {
	Module  string          `json:"module"`
	ID      string          `json:"id"`
	Kind    string          `json:"kind"`
	Version rowtide.Version `json:"version,omitempty,string"` // of the entry in Redis
	Redis   string          `json:"redis,omitempty"`
	Source  string          `json:"source,omitempty"`
	// Unrepaired says why --repair left it.
	Unrepaired string `json:"unrepaired,omitempty"`
}

// stored is what Redis holds for one key.
type stored struct {
	there     bool
	raw, mark []byte // all of it, to tell one look from the next
	// err says why it is no entry of the key.
	err error
	rowtide.Entry
	// plain: a bare value, which has no generation; bare: not even a version.
	plain, bare bool
	// foreign: a key of another type, which no script overwrites.
	foreign bool
}

func (c *check) key(id string) rowtide.Key {
	return rowtide.Key{Module: c.m.Config().Name, Version: c.m.Config().Version, ID: id}
}

// read gets what the keys hold. It pipelines GETs: an MGET would need one slot in
// a cluster, and one more right.
func (c *check) read(ctx context.Context, ids []string) ([]stored, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	plain := c.m.Config().Layout == aggregator.LayoutPlain
	pipe := c.rdb.Pipeline()
	values, beside := make([]*redis.StringCmd, len(ids)), make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		name := c.key(id).Redis(c.prefix)
		values[i] = pipe.Get(ctx, name)
		if plain {
			beside[i] = pipe.Get(ctx, overwrite.VersionKey(name))
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	out := make([]stored, len(ids))
	for i, id := range ids {
		var err error
		if plain {
			out[i], err = plainEntry(c.key(id), values[i], beside[i])
		} else {
			out[i], err = envelopeEntry(c.key(id), values[i])
		}
		if err != nil {
			return nil, err
		}
		out[i].outdate(c.verifier)
	}
	return out, nil
}

// reply is a GET's value. A key of another type is a fault of the key.
func reply(cmd *redis.StringCmd) (value []byte, there bool, fault, err error) {
	value, err = cmd.Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, false, nil, nil
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return nil, true, errors.New("holds another type than a string"), nil
	case err != nil:
		return nil, false, nil, fmt.Errorf("read redis: %w", err)
	}
	return value, true, nil, nil
}

func envelopeEntry(k rowtide.Key, cmd *redis.StringCmd) (s stored, err error) {
	value, there, fault, err := reply(cmd)
	if err != nil || !there {
		return s, err
	}
	s = stored{there: true, raw: value, err: fault, foreign: fault != nil}
	if fault == nil {
		s.Entry, s.err = rowtide.DecodeEnvelope(k, value)
		if s.err != nil {
			s.Version, _ = rowtide.EnvelopeVersion(value)
		} else if s.Key.Version != k.Version {
			s.err = fmt.Errorf("the envelope is of the module's version %d", s.Key.Version)
		}
	}
	return s, nil
}

func plainEntry(k rowtide.Key, value, beside *redis.StringCmd) (s stored, err error) {
	payload, there, fault, err := reply(value)
	if err != nil {
		return s, err
	}
	mark, marked, markFault, err := reply(beside)
	if err != nil {
		return s, err
	}
	s = stored{there: there, raw: payload, mark: mark, err: errors.Join(fault, markFault), foreign: fault != nil || markFault != nil, plain: true}
	s.Key, s.Payload = k, payload
	if s.bare = !marked || s.foreign; s.bare {
		return s, nil
	}
	var ok bool
	if s.Version, s.Flags, ok = overwrite.ParsePlainVersion(string(mark)); !ok {
		s.err = fmt.Errorf("its version is %.40q", mark)
	}
	if s.Empty() {
		if len(payload) > 0 {
			s.err = errors.New("its version says EMPTY, but it has a value")
		}
		s.Payload = nil
	}
	return s, nil
}

// same reports whether nothing was written between two looks.
func (s *stored) same(o *stored) bool {
	return s.there == o.there && bytes.Equal(s.raw, o.raw) && bytes.Equal(s.mark, o.mark)
}

// outdate takes an entry of an old generation for none: nobody serves it.
func (s *stored) outdate(v *verifier) {
	if !s.there || s.err != nil || s.plain {
		return
	}
	if g := v.generations[s.Key.Module]; s.Generation < g.Generation && s.Version < g.Since {
		s.there = false
	}
}

// differ compares one key's entry in Redis with what it must be.
func (c *check) differ(want aggregator.Expected, got *stored) *difference {
	codec := c.m.Config().Codec
	d := &difference{Module: c.r.Module, ID: want.ID, Version: got.Version, Redis: c.show(got.Payload), Source: c.show(want.Payload)}
	switch {
	case want.Err != nil:
		d.Kind, d.Source = diffWrong, "the row cannot be a value: "+want.Err.Error()
	case !got.there:
		if want.Payload == nil {
			return nil
		}
		d.Kind = diffMissing
	case got.err != nil:
		d.Kind, d.Redis = diffWrong, got.err.Error()
	case want.Payload == nil:
		if got.Empty() {
			return nil
		}
		d.Kind = diffExtra
	case !got.Empty() && samePayload(codec, got.Payload, want.Payload):
		return nil
	default:
		d.Kind = diffStale
	}
	return d
}

// show makes a value readable, and short enough to be kept.
func (c *check) show(payload []byte) string {
	text := readable(c.m.Config().Codec, payload)
	if c.truncated > 0 && len(text) > c.truncated {
		text = strings.ToValidUTF8(text[:c.truncated], "") + "…"
	}
	return text
}

// readable is a payload as text: msgpack as JSON, bytes that are no text quoted.
func readable(codec string, payload []byte) string {
	if codec == aggregator.CodecMsgpack && payload != nil {
		if v, err := unpack(payload); err == nil {
			if b, err := json.Marshal(v); err == nil {
				return string(b)
			}
		}
	}
	if !utf8.Valid(payload) {
		return fmt.Sprintf("%q", payload)
	}
	return string(payload)
}

// samePayload compares two values. Documents may have their fields in another
// order: a node's loader may write them so.
func samePayload(codec string, a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	switch codec {
	case aggregator.CodecRaw:
		return false
	case aggregator.CodecMsgpack:
		x, errX := unpack(a)
		y, errY := unpack(b)
		return errX == nil && errY == nil && reflect.DeepEqual(x, y)
	}
	return sameDocument(a, b)
}

func unpack(b []byte) (any, error) {
	r := bytes.NewReader(b)
	dec := msgpack.NewDecoder(r)
	dec.UseLooseInterfaceDecoding(true) // an integer's width is no difference
	v, err := dec.DecodeInterface()
	if err == nil && r.Len() > 0 {
		err = errTrailing
	}
	return v, err
}

var errTrailing = errors.New("bytes after the document")

// sameDocument compares two JSON documents.
func sameDocument(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, errX := parseDocument(a)
	y, errY := parseDocument(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

func parseDocument(b []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // 64-bit ids do not fit a float
	if err = dec.Decode(&v); err == nil && dec.More() {
		err = errTrailing
	}
	return v, err
}

// holding lists those of the keys that hold anything but an EMPTY entry. It reads
// no values.
func (c *check) holding(ctx context.Context, ids []string) ([]string, error) {
	plain := c.m.Config().Layout == aggregator.LayoutPlain
	pipe := c.rdb.Pipeline()
	heads := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		name := c.key(id).Redis(c.prefix)
		if plain {
			heads[i] = pipe.Get(ctx, overwrite.VersionKey(name))
		} else {
			heads[i] = pipe.GetRange(ctx, name, 0, rowtide.EnvelopeHeader-1)
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var out []string
	for i, id := range ids {
		head, there, fault, err := reply(heads[i])
		if err != nil {
			return nil, err
		}
		var flags rowtide.Flags
		switch {
		case fault != nil:
		case plain:
			_, flags, _ = overwrite.ParsePlainVersion(string(head))
		case !there || len(head) == 0:
			continue // it ended since the scan
		case len(head) == rowtide.EnvelopeHeader && head[0] == rowtide.EnvelopeMagic:
			flags = rowtide.Flags(head[1])
		}
		if flags&rowtide.FlagEmpty == 0 {
			out = append(out, id)
		}
	}
	return out, nil
}

// globEscape takes the meaning of a pattern away from a key's name.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
