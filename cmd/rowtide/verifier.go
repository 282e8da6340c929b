package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
)

// How a key can differ.
const (
	diffMissing = "missing" // the database has it, Redis does not
	diffExtra   = "extra"   // Redis has a value, the database has none
	diffWrong   = "wrong"   // the values differ
)

// difference is one key for which Redis and the database disagree.
type difference struct {
	Module string `json:"module"`
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Redis  string `json:"redis,omitempty"`
	Source string `json:"source,omitempty"`
}

// verifyBatch is how many keys are compared per round trip.
const verifyBatch = 500

// recheck is how often, and how far apart, a difference is looked at again before
// it is reported: a change may be under way.
const (
	rechecks     = 10
	recheckPause = 200 * time.Millisecond
)

// verifier compares modules with the database, key by key, both ways.
type verifier struct {
	db     *binlog.Reader
	rdb    redis.UniversalClient
	prefix string
}

// module checks one module and returns how many keys it compared and which
// differ.
func (v *verifier) module(ctx context.Context, m *aggregator.Module) (keys int, diffs []difference, err error) {
	seen := map[uint64]struct{}{}
	err = v.expected(ctx, m, func(batch []aggregator.Expected) error {
		for _, want := range batch {
			seen[v.key(m, want.ID).Hash()] = struct{}{}
		}
		keys += len(batch)
		return v.compare(ctx, m, batch, &diffs)
	})
	if err != nil {
		return keys, diffs, err
	}
	extra, n, err := v.extras(ctx, m, seen)
	return keys + n, append(diffs, extra...), err
}

func (v *verifier) key(m *aggregator.Module, id string) rowtide.Key {
	return rowtide.Key{Module: m.Config().Name, Version: m.Config().Version, ID: id}
}

// expected hands every key that the database has to fn, in batches.
func (v *verifier) expected(ctx context.Context, m *aggregator.Module, fn func([]aggregator.Expected) error) error {
	x, err := v.expectation(ctx, m)
	if err != nil {
		return err
	}
	var batch []aggregator.Expected
	var keys []any
	flush := func() error {
		if x.Rebuild() && len(keys) > 0 {
			if batch, err = v.documents(ctx, m, keys); err != nil {
				return err
			}
			keys = nil
		}
		err := fn(batch)
		batch = nil
		return err
	}
	err = v.db.Each(ctx, x.All(), nil, func(_ []string, row []rowtide.Value) error {
		if x.Rebuild() {
			keys = append(keys, row[0])
		} else {
			want, err := x.Row(row)
			if err != nil {
				return err
			}
			batch = append(batch, want)
		}
		if max(len(batch), len(keys)) < verifyBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func (v *verifier) expectation(ctx context.Context, m *aggregator.Module) (*aggregator.Expectation, error) {
	cols, err := v.db.Columns(ctx, m.Table())
	if err != nil {
		return nil, err
	}
	return m.Expect(cols)
}

func (v *verifier) documents(ctx context.Context, m *aggregator.Module, keys []any) ([]aggregator.Expected, error) {
	docs, err := m.Documents(keys, func(q string, args []any) ([]string, [][]rowtide.Value, error) {
		return v.db.Query(ctx, q, args...)
	})
	if err != nil {
		return nil, err
	}
	out := make([]aggregator.Expected, len(keys))
	for i, k := range keys {
		id, err := rowtide.AppendText(nil, k)
		if err != nil {
			return nil, err
		}
		out[i] = aggregator.Expected{ID: string(id), Payload: docs[string(id)]}
	}
	return out, nil
}

// compare reads the batch from Redis and looks twice at what differs.
func (v *verifier) compare(ctx context.Context, m *aggregator.Module, batch []aggregator.Expected, diffs *[]difference) error {
	if len(batch) == 0 {
		return nil
	}
	pipe := v.rdb.Pipeline()
	got := make([]*redis.StringCmd, len(batch))
	for i := range batch {
		got[i] = pipe.Get(ctx, v.key(m, batch[i].ID).Redis(v.prefix))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read redis: %w", err)
	}
	for i, want := range batch {
		b, _ := got[i].Bytes() // a missing key is an empty value here
		if v.differ(m, want, b) == nil {
			continue
		}
		d, err := v.again(ctx, m, want)
		if err != nil {
			return err
		}
		if d != nil {
			*diffs = append(*diffs, *d)
		}
	}
	return nil
}

// differ compares one key's value in Redis with what it must be.
func (v *verifier) differ(m *aggregator.Module, want aggregator.Expected, stored []byte) *difference {
	d := &difference{Module: m.Config().Name, ID: want.ID, Source: string(want.Payload)}
	e, err := rowtide.DecodeEnvelope(v.key(m, want.ID), stored)
	switch {
	case len(stored) == 0:
		d.Kind = diffMissing
	case err != nil:
		d.Kind, d.Redis = diffWrong, err.Error()
	case want.Payload == nil:
		d.Kind, d.Redis = diffExtra, string(e.Payload)
	default:
		d.Kind, d.Redis = diffWrong, string(e.Payload)
	}
	present := len(stored) > 0 && err == nil && !e.Empty()
	absent := len(stored) == 0 || err == nil && e.Empty()
	if want.Payload == nil && absent || want.Payload != nil && present && sameDocument(e.Payload, want.Payload) {
		return nil
	}
	return d
}

// sameDocument compares two JSON documents: a node's loader may write the fields
// in another order than the daemon.
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
	err = dec.Decode(&v)
	return v, err
}

// again looks at a key until Redis and the database agree, or patience ends.
func (v *verifier) again(ctx context.Context, m *aggregator.Module, seen aggregator.Expected) (*difference, error) {
	var d *difference
	id := seen.ID
	for range rechecks {
		want, err := v.one(ctx, m, seen)
		if err != nil {
			return nil, err
		}
		b, err := v.rdb.Get(ctx, v.key(m, id).Redis(v.prefix)).Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("read redis: %w", err)
		}
		if d = v.differ(m, want, b); d == nil {
			return nil, nil //nolint:nilnil // no difference after all
		}
		select {
		case <-time.After(recheckPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return d, nil
}

// one asks the database for one key.
func (v *verifier) one(ctx context.Context, m *aggregator.Module, seen aggregator.Expected) (aggregator.Expected, error) {
	id := seen.ID
	x, err := v.expectation(ctx, m)
	if err != nil {
		return aggregator.Expected{}, err
	}
	if x.Rebuild() {
		docs, err := v.documents(ctx, m, []any{id})
		if err != nil {
			return aggregator.Expected{}, err
		}
		return docs[0], nil
	}
	want := aggregator.Expected{ID: id}
	query, args, ok := x.OneRow(seen)
	if !ok {
		return want, nil
	}
	_, rows, err := v.db.Query(ctx, query, args...)
	if err != nil || len(rows) == 0 {
		return want, err
	}
	return x.Row(rows[0])
}

// extras scans the module's keys in Redis for values that the database does not
// have.
func (v *verifier) extras(ctx context.Context, m *aggregator.Module, seen map[uint64]struct{}) (diffs []difference, n int, err error) {
	start := v.key(m, "").Redis(v.prefix)
	var unknown []aggregator.Expected
	err = scan(ctx, v.rdb, start+"*", func(name string) error {
		id := name[len(start):]
		if _, ok := seen[v.key(m, id).Hash()]; !ok {
			unknown = append(unknown, aggregator.Expected{ID: id})
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	for len(unknown) > 0 {
		size := min(len(unknown), verifyBatch)
		if err := v.compare(ctx, m, unknown[:size], &diffs); err != nil {
			return nil, n, err
		}
		n += size
		unknown = unknown[size:]
	}
	return diffs, n, nil
}

// scan hands every key of the pattern to fn, on all primaries of a cluster. A
// key may come twice.
func scan(ctx context.Context, rdb redis.UniversalClient, pattern string, fn func(string) error) error {
	node := func(ctx context.Context, c redis.Cmdable) error {
		it := c.Scan(ctx, 0, pattern, verifyBatch).Iterator()
		for it.Next(ctx) {
			if err := fn(it.Val()); err != nil {
				return err
			}
		}
		return it.Err()
	}
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		// The client asks the primaries side by side.
		var mu sync.Mutex
		one := fn
		fn = func(name string) error {
			mu.Lock()
			defer mu.Unlock()
			return one(name)
		}
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return node(ctx, c) })
	}
	return node(ctx, rdb)
}
