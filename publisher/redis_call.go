package publisher

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// scripts are the two by which entries are written, and their names in Redis.
type scripts struct{ envelope, plain string }

func newScripts() *scripts {
	sha := func(script string) string {
		sum := sha1.Sum([]byte(script)) //nolint:gosec // Redis names scripts by SHA-1
		return hex.EncodeToString(sum[:])
	}
	return &scripts{envelope: sha(overwrite.Script), plain: sha(overwrite.PlainScript)}
}

// load gives the scripts to every primary.
func (s *scripts) load(ctx context.Context, rdb redis.UniversalClient) error {
	return errors.Join(
		rdb.ScriptLoad(ctx, overwrite.Script).Err(),
		rdb.ScriptLoad(ctx, overwrite.PlainScript).Err(),
	)
}

// call is one script call and the items that it writes.
type call struct {
	items []item
	sha   string
	keys  []string
	args  []any
	cmd   *redis.Cmd
}

func (c *call) queue(ctx context.Context, on redis.Scripter) {
	c.cmd = on.EvalSha(ctx, c.sha, c.keys, c.args...)
}

// pipeline sends one round trip of script calls (in a cluster, one per node).
// Codes are counted only when all have answered, so that a repeat does not count
// twice.
func (r *Redis) pipeline(ctx context.Context, items []item, perCall int) error {
	calls := make([]*call, 0, len(items)/perCall+1)
	arena := make([]byte, 0, arenaSize(items))
	for len(items) > 0 {
		n := 1
		for n < min(perCall, len(items)) && items[n].joins(&items[0]) {
			n++
		}
		c := &call{items: items[:n]}
		if items[0].plain {
			r.plain(c)
		} else {
			arena = r.envelopes(c, arena)
		}
		calls = append(calls, c)
		items = items[n:]
	}
	var err error
	if cluster, ok := r.rdb.(*redis.ClusterClient); ok {
		err = perNode(ctx, cluster, calls)
	} else {
		pipe := r.rdb.Pipeline()
		for _, c := range calls {
			c.queue(ctx, pipe)
		}
		_, err = pipe.Exec(ctx)
	}
	if err != nil {
		return err
	}
	var t tally
	for _, c := range calls {
		if err := t.read(c); err != nil {
			return err
		}
	}
	t.report(r.obs)
	if t.fenced() {
		return fmt.Errorf("term %d: %w", r.fence.term, ErrFenced)
	}
	return nil
}

// perNode sends each primary its calls in one pipeline. What a moving slot makes
// a node refuse is sent again by itself, and follows the redirection. The
// client's own pipelines do that too, but may then send one command twice at once
// and read both answers into it (seen in v9.23.0 by the race detector).
func perNode(ctx context.Context, cluster *redis.ClusterClient, calls []*call) error {
	nodes := map[*redis.Client][]*call{}
	for _, c := range calls {
		node, err := cluster.MasterForKey(ctx, c.keys[0])
		if err != nil {
			return fmt.Errorf("find the primary of key %s: %w", c.keys[0], err)
		}
		nodes[node] = append(nodes[node], c)
	}
	g, gctx := errgroup.WithContext(ctx)
	for node, calls := range nodes {
		g.Go(func() error {
			pipe := node.Pipeline()
			for _, c := range calls {
				c.queue(gctx, pipe)
			}
			_, _ = pipe.Exec(gctx) // every call has its own error
			for _, c := range calls {
				if redirected(c.cmd.Err()) {
					c.queue(gctx, cluster)
				}
				if err := c.cmd.Err(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func redirected(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), "MOVED ") || strings.HasPrefix(err.Error(), "ASK "))
}

func (r *Redis) envelopes(c *call, arena []byte) []byte {
	items := c.items
	keys := make([]string, len(items), len(items)+1)
	args := make([]any, 1, 2+2*len(items))
	args[0] = string(overwrite.CDC)
	for i := range items {
		keys[i] = items[i].name
		start := len(arena)
		arena = items[i].AppendEnvelope(arena)
		args = append(args, arena[start:len(arena):len(arena)], items[i].TTL.Milliseconds())
	}
	c.sha, c.keys, c.args = r.scripts.envelope, keys, args
	r.fence.guard(c)
	return arena
}

func (r *Redis) plain(c *call) {
	items := c.items
	keys := make([]string, 0, 1+2*len(items))
	args := make([]any, 1, 2+3*len(items))
	args[0] = string(overwrite.CDC)
	for i := range items {
		e := items[i].Entry
		keys = append(keys, items[i].name, overwrite.VersionKey(items[i].name))
		value := e.Payload
		if value == nil {
			value = []byte{} // EMPTY is the empty string: nothing is deleted
		}
		args = append(args, value, overwrite.PlainVersion(e.Version, e.Flags), e.TTL.Milliseconds())
	}
	c.sha, c.keys, c.args = r.scripts.plain, keys, args
	r.fence.guard(c)
}

// guard lets the script compare the terms.
func (f fence) guard(c *call) {
	if f.term > 0 {
		c.keys, c.args = append(c.keys, f.key), append(c.args, f.term)
	}
}

// tally counts results by module. A pipeline has few modules, and their entries
// come in runs.
type tally []moduleTally

type moduleTally struct {
	module string
	counts [overwrite.Fenced + 1]int
}

func (t *tally) of(module string) *moduleTally {
	for i := len(*t) - 1; i >= 0; i-- {
		if (*t)[i].module == module {
			return &(*t)[i]
		}
	}
	*t = append(*t, moduleTally{module: module})
	return &(*t)[len(*t)-1]
}

// read takes over the codes of one call.
func (t *tally) read(c *call) error {
	codes, err := c.cmd.Int64Slice()
	if err != nil {
		return fmt.Errorf("read script result: %w", err)
	}
	if len(codes) != len(c.items) {
		return fmt.Errorf("script returned %d codes for %d keys", len(codes), len(c.items))
	}
	for i, code := range codes {
		item := &c.items[i]
		switch {
		case overwrite.Result(code) == overwrite.WrongType:
			return &wrongTypeError{item.Key.Module, item.name}
		case code < 0 || code > int64(overwrite.Fenced):
			return fmt.Errorf("script returned code %d for %s", code, item.name)
		}
		t.of(item.Key.Module).counts[code]++
	}
	return nil
}

func (t *tally) fenced() bool {
	return slices.ContainsFunc(*t, func(m moduleTally) bool { return m.counts[overwrite.Fenced] > 0 })
}

func (t *tally) report(obs Observer) {
	for _, m := range *t {
		for code, n := range m.counts {
			if n > 0 {
				obs.Overwrote(m.module, overwrite.Result(code), n)
			}
		}
	}
}

func arenaSize(items []item) int {
	n := 0
	for i := range items {
		n += rowtide.EnvelopeHeader + len(items[i].Payload)
	}
	return n
}
