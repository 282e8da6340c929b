package publisher

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
	"github.com/rowtide/rowtide/internal/overwrite"
)

const (
	// keysPerCall is where one script call is cheapest per key (measured at 10, 50
	// and 100 keys; 50 was best). In a cluster the keys of a call must share a
	// slot, so there it is one.
	keysPerCall = 50
	// callsPerPipeline bounds one round trip to 1,000 keys, some 250 KB.
	callsPerPipeline = 20
	// lanes write side by side; Redis itself has one core, a second lane hides the
	// client's own work.
	lanes = 2
)

// Redis overwrites entries.
type Redis struct {
	rdb     redis.UniversalClient
	prefix  string
	perCall int
	sha     string
	log     *slog.Logger
	obs     Observer
}

// NewRedis makes a store on rdb. It does no I/O.
func NewRedis(rdb redis.UniversalClient, prefix string, log *slog.Logger, obs Observer) *Redis {
	sum := sha1.Sum([]byte(overwrite.Script)) //nolint:gosec // Redis names scripts by SHA-1
	r := &Redis{rdb: rdb, prefix: prefix, perCall: keysPerCall, sha: hex.EncodeToString(sum[:]), log: log, obs: obs}
	if _, ok := rdb.(*redis.ClusterClient); ok {
		r.perCall = 1
	}
	return r
}

// Overwrite stores every entry that is not older than what is there. It returns
// nil only when Redis has answered for each. A Redis that is away, full or read
// only is waited for; the script is harmless to repeat.
func (r *Redis) Overwrite(ctx context.Context, entries []rowtide.Entry) error {
	per := max(r.perCall, (len(entries)+lanes-1)/lanes)
	if per >= len(entries) {
		return r.lane(ctx, entries) // the common small flush needs no goroutine
	}
	g, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(entries, per) {
		g.Go(func() error { return r.lane(ctx, part) })
	}
	return g.Wait()
}

// lane writes its entries in pipelines, one after the other, each until it is
// through.
func (r *Redis) lane(ctx context.Context, entries []rowtide.Entry) error {
	size := r.perCall * callsPerPipeline
	for len(entries) > 0 {
		n := min(size, len(entries))
		if err := r.until(ctx, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

func (r *Redis) until(ctx context.Context, entries []rowtide.Entry) error {
	wait := backoff.New(20*time.Millisecond, 2*time.Second)
	failing, loaded := false, false
	for {
		err := r.pipeline(ctx, entries)
		if err == nil {
			if failing {
				r.log.Info("redis accepts writes again")
				r.obs.RedisAway(nil)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if isNoScript(err) && !loaded {
			loaded = true // once per refusal: a server that forgets at once is a fault
			if err = r.rdb.ScriptLoad(ctx, overwrite.Script).Err(); err == nil {
				continue
			}
		}
		loaded = false
		if !failing {
			failing = true
			r.log.Warn("redis refuses writes, holding the source back until it accepts them", "err", err)
			r.obs.RedisAway(err)
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

func isNoScript(err error) bool { return strings.HasPrefix(err.Error(), "NOSCRIPT") }

// pipeline sends one round trip of script calls. Codes are counted only when
// all have answered, so that a repeat does not count twice.
func (r *Redis) pipeline(ctx context.Context, entries []rowtide.Entry) error {
	cmds := make([]*redis.Cmd, 0, len(entries)/r.perCall+1)
	arena := make([]byte, 0, arenaSize(entries))
	pipe := r.rdb.Pipeline()
	for from := 0; from < len(entries); from += r.perCall {
		part := entries[from:min(from+r.perCall, len(entries))]
		keys := make([]string, len(part))
		args := make([]any, 1, 1+2*len(part))
		args[0] = string(overwrite.CDC)
		for i := range part {
			keys[i] = part[i].Key.Redis(r.prefix)
			start := len(arena)
			arena = part[i].AppendEnvelope(arena)
			args = append(args, arena[start:len(arena):len(arena)], part[i].TTL.Milliseconds())
		}
		cmds = append(cmds, pipe.EvalSha(ctx, r.sha, keys, args...))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	var counts [overwrite.WrongType + 1]int
	at := 0
	for _, cmd := range cmds {
		codes, err := cmd.Int64Slice()
		if err != nil {
			return fmt.Errorf("read script result: %w", err)
		}
		for _, code := range codes {
			if code < 0 || code >= int64(len(counts)) {
				return fmt.Errorf("script returned code %d for %s", code, entries[at].Key)
			}
			if overwrite.Result(code) == overwrite.WrongType {
				r.obs.Overwrote(overwrite.WrongType, 1)
				return fmt.Errorf("key %s holds another type; rename or remove it, or change the prefix: %w", entries[at].Key.Redis(r.prefix), errWrongType)
			}
			counts[code]++
			at++
		}
	}
	for code, n := range counts {
		if n > 0 {
			r.obs.Overwrote(overwrite.Result(code), n)
		}
	}
	return nil
}

var errWrongType = errors.New("WRONGTYPE")

func arenaSize(entries []rowtide.Entry) int {
	n := 0
	for i := range entries {
		n += rowtide.EnvelopeHeader + len(entries[i].Payload)
	}
	return n
}
