package localsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/overwrite"
)

// remote is Redis: many keys in one round trip, and writes by set-if-newer only.
type remote struct {
	rdb     redis.UniversalClient
	script  *redis.Script
	lease   *redis.Script
	timeout time.Duration
	now     func() int64
	spawn   func(func())
	// awayUntil cuts off a Redis that failed, so that not every read pays for a
	// timeout while it is down. One failure is enough: the price of being wrong is
	// a tenth of a second of loader calls.
	awayUntil atomic.Int64
}

// awayFor is the pause after a failure.
const awayFor = 100 * time.Millisecond

var (
	errAway = errors.New("redis failed a moment ago")
	errGone = errors.New("the call ended its goroutine")
)

// noString stands for a key of another type: as unusable as an empty string.
var noString = []byte{}

// get reads all names at once. A missing key is nil, and so may be one of another
// type, which MGET does not tell apart; sure asks once more for those.
func (r *remote) get(ctx context.Context, names []string, sure bool) ([][]byte, error) {
	return guard(ctx, r, func(ctx context.Context) ([][]byte, error) {
		if _, ok := r.rdb.(*redis.Client); !ok {
			return r.getEach(ctx, names)
		}
		values, err := r.mget(ctx, names)
		if err != nil || !sure {
			return values, err
		}
		var lacking []string
		for i, v := range values {
			if v == nil {
				lacking = append(lacking, names[i])
			}
		}
		if len(lacking) == 0 {
			return values, nil
		}
		again, err := r.getEach(ctx, lacking)
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			if v == nil {
				values[i], again = again[0], again[1:]
			}
		}
		return values, nil
	})
}

func (r *remote) mget(ctx context.Context, names []string) ([][]byte, error) {
	got, err := r.rdb.MGet(ctx, names...).Result()
	if err != nil {
		return nil, fmt.Errorf("read %d keys: %w", len(names), err)
	}
	out := make([][]byte, len(names))
	for i, v := range got {
		if s, ok := v.(string); ok {
			out[i] = []byte(s)
		}
	}
	return out, nil
}

// getEach pipelines single reads: an MGET may not cross the slots of a cluster.
func (r *remote) getEach(ctx context.Context, names []string) ([][]byte, error) {
	cmds := make([]*redis.StringCmd, len(names))
	// Pipelined's own error is the first of those looked at below.
	_, _ = r.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			cmds[i] = p.Get(ctx, name)
		}
		return nil
	})
	out := make([][]byte, len(names))
	for i, cmd := range cmds {
		b, err := cmd.Bytes()
		switch {
		case err == nil && len(b) > 0:
			out[i] = b
		case err == nil, redis.HasErrorPrefix(err, "WRONGTYPE"):
			out[i] = noString
		case errors.Is(err, redis.Nil):
		default:
			return nil, fmt.Errorf("read %d keys: %w", len(names), err)
		}
	}
	return out, nil
}

// filling is one loaded value on its way to Redis.
type filling struct {
	name     string
	envelope []byte
	ttl      time.Duration
}

// fill offers loaded values to Redis, which takes those that are newer than what
// it has, and ends leases in the same round trip: after is run behind the writes.
// One script call per key, pipelined, so that a cluster can split them.
func (r *remote) fill(ctx context.Context, fs []filling, after []scriptCall) ([]overwrite.Result, []*redis.Cmd, error) {
	calls := make([]scriptCall, 0, len(fs)+len(after))
	for _, f := range fs {
		calls = append(calls, scriptCall{r.script, []string{f.name}, []any{string(overwrite.Fill), f.envelope, f.ttl.Milliseconds()}})
	}
	cmds, err := r.run(ctx, append(calls, after...))
	if err != nil {
		return nil, nil, fmt.Errorf("write %d loaded values: %w", len(fs), err)
	}
	out := make([]overwrite.Result, len(fs))
	for i, cmd := range cmds[:len(fs)] {
		codes, err := cmd.Int64Slice()
		if err != nil || len(codes) != 1 {
			return nil, nil, fmt.Errorf("write %s: script answered %v: %w", fs[i].name, cmd.Val(), err)
		}
		out[i] = overwrite.Result(codes[0])
	}
	return out, cmds[len(fs):], nil
}

// scriptCall is one EVALSHA.
type scriptCall struct {
	script *redis.Script
	keys   []string
	args   []any
}

// run sends all calls in one pipeline. A server's refusal of one call is in its
// command; the error is for when the server could not be asked.
func (r *remote) run(ctx context.Context, calls []scriptCall) ([]*redis.Cmd, error) {
	return guard(ctx, r, func(ctx context.Context) ([]*redis.Cmd, error) {
		cmds, err := r.evalEach(ctx, calls)
		if slices.ContainsFunc(cmds, func(c *redis.Cmd) bool { return redis.HasErrorPrefix(c.Err(), "NOSCRIPT") }) {
			for _, s := range []*redis.Script{r.script, r.lease} {
				if err := s.Load(ctx, r.rdb).Err(); err != nil {
					return nil, fmt.Errorf("load scripts: %w", err)
				}
			}
			// Both scripts are harmless to repeat: a second fill finds a tie, a second
			// lease its own token.
			cmds, err = r.evalEach(ctx, calls)
		}
		if _, refused := errors.AsType[redis.Error](err); refused {
			err = nil
		}
		return cmds, err
	})
}

func (r *remote) evalEach(ctx context.Context, calls []scriptCall) ([]*redis.Cmd, error) {
	cmds := make([]*redis.Cmd, len(calls))
	_, err := r.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, c := range calls {
			cmds[i] = p.EvalSha(ctx, c.script.Hash(), c.keys, c.args...)
		}
		return nil
	})
	return cmds, err
}

// publish sends each node its news. It is best effort, and never a reason to keep
// off Redis: the right to publish may be missing.
func (r *remote) publish(ctx context.Context, prefix string, news map[string][]byte) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	_, _ = bounded(ctx, r.spawn, func(ctx context.Context) (struct{}, error) {
		_, err := r.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for node, b := range news {
				p.Publish(ctx, channelOf(prefix, node), b)
			}
			return nil
		})
		return struct{}{}, err
	})
}

// guard bounds a call in time even if the client does not look at its context
// (go-redis does only with ContextTimeoutEnabled), and keeps off a Redis that
// has just failed.
func guard[T any](parent context.Context, r *remote, call func(context.Context) (T, error)) (T, error) {
	var zero T
	if r.now() < r.awayUntil.Load() {
		return zero, errAway
	}
	ctx, cancel := context.WithTimeout(parent, r.timeout)
	defer cancel()
	v, err := bounded(ctx, r.spawn, call)
	if err != nil && !over(parent) { // else it was the caller's time that was up
		raise(&r.awayUntil, r.now()+int64(awayFor))
	}
	return v, err
}

// over looks at the clock, too: a socket may meet ctx's deadline before ctx does.
func over(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// bounded runs call and returns at ctx's end at the latest; a late result is
// dropped. A panic becomes an error: it would otherwise end the process from a
// goroutine that no caller can recover in. So does runtime.Goexit, which t.Fatal
// calls.
func bounded[T any](ctx context.Context, spawn func(func()), call func(context.Context) (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	ch := make(chan answer, 1)
	spawn(func() {
		a := answer{err: errGone}
		defer func() {
			if p := recover(); p != nil {
				a.err = fmt.Errorf("panic: %v", p)
			}
			ch <- a
		}()
		a.v, a.err = call(ctx)
	})
	select {
	case a := <-ch:
		return a.v, a.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}
