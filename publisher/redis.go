package publisher

import (
	"context"
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
	// slot, so there a call is as large as a flush has keys of one.
	keysPerCall = 50
	// keysPerPipeline bounds one round trip, to some 250 KB of small values.
	keysPerPipeline = 1000
	// lanes write side by side; Redis itself has one core, a second lane hides the
	// client's own work.
	lanes = 2
)

// ErrBraces means that a key of a module with layout plain cannot be written to a
// cluster: its id has a brace, so that value and version would have different
// slots. Change the module's key, or its layout.
var ErrBraces = errors.New("an id with braces cannot have layout plain in a cluster")

// ErrFenced means that another daemon was elected since: this one's writes are
// refused for good. Stop; the work is in the other's hands.
var ErrFenced = errors.New("another daemon was elected and writes to redis from here on")

// Redis overwrites entries.
type Redis struct {
	rdb     redis.UniversalClient
	prefix  string
	layout  func(module string) Layout
	fence   fence
	hints   *Hints
	refused func([]rowtide.Entry)
	cluster bool
	lanes   int
	scripts *scripts
	out     outage
	log     *slog.Logger
	obs     Observer
}

// RedisOption is a choice of [NewRedis].
type RedisOption func(*Redis)

// WithLayout asks of for the layout of a module at each write; it must be quick
// and safe to call from several goroutines. Without it, all modules have
// [LayoutEnvelope].
func WithLayout(of func(module string) Layout) RedisOption {
	return func(r *Redis) { r.layout = of }
}

// fence is under which term a daemon writes, and where the newest one stands.
type fence struct {
	key  string
	term uint64 // 0: no fence
}

// WithFence makes every write fail with [ErrFenced] once the number under key is
// above term, which is compared in the step that writes. A term of 0 is no fence. In a
// cluster there is none either: the key has a slot of its own, and a script sees one.
func WithFence(key string, term uint64) RedisOption {
	return func(r *Redis) { r.fence = fence{key, term} }
}

// WithHints tells nodes of what was written.
func WithHints(h *Hints) RedisOption { return func(r *Redis) { r.hints = h } }

const (
	// forewarnAfter is how long a flush is tried before nodes are told: longer than a
	// failover that goes well takes to be noticed, shorter than Kafka's silence.
	forewarnAfter = time.Second
	// forewarnEvery is how often they are told again: nodes that open meanwhile, and
	// those that have forgotten (localsync.Options.FloorAge, 5 minutes).
	forewarnEvery = time.Minute
)

// WithForewarning calls tell with the entries of a flush that Redis has refused a part
// of for about a second, and every minute from then on; they are tried on. tell must not
// block.
func WithForewarning(tell func([]rowtide.Entry)) RedisOption {
	return func(r *Redis) { r.refused = tell }
}

// NewRedis makes a store on rdb. It does no I/O.
func NewRedis(rdb redis.UniversalClient, prefix string, log *slog.Logger, obs Observer, opts ...RedisOption) *Redis {
	r := &Redis{
		rdb: rdb, prefix: prefix, lanes: lanes, scripts: newScripts(), log: log, obs: obs,
		layout: func(string) Layout { return LayoutEnvelope },
	}
	_, r.cluster = rdb.(*redis.ClusterClient)
	for _, o := range opts {
		o(r)
	}
	if r.cluster {
		r.fence = fence{}
	}
	return r
}

// Overwrite stores every entry that is not older than what is there. It returns
// nil only when Redis has answered for each. A Redis that is away, full, read
// only or in a failover is waited for; the script is harmless to repeat. The only
// other errors than ctx's are [ErrBraces], before anything is written, and [ErrFenced].
func (r *Redis) Overwrite(ctx context.Context, entries []rowtide.Entry) error {
	err := r.overwrite(ctx, entries)
	if err == nil {
		r.hints.tell(entries)
	}
	return err
}

func (r *Redis) overwrite(ctx context.Context, entries []rowtide.Entry) error {
	items, err := r.items(entries)
	if err != nil {
		return err
	}
	warn := &warning{entries: entries, due: time.Now().Add(forewarnAfter), tell: r.refused}
	per := max(keysPerCall, (len(items)+r.lanes-1)/r.lanes)
	if per >= len(items) {
		return r.lane(ctx, items, warn) // the common small flush needs no goroutine
	}
	// The keys of a flush differ, so which lane takes one does not matter.
	g, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(items, per) {
		g.Go(func() error { return r.lane(ctx, part, warn) })
	}
	return g.Wait()
}

// item is one entry on its way.
type item struct {
	*rowtide.Entry
	name  string
	slot  uint16 // 0 outside of a cluster
	plain bool
}

// joins reports whether two items may share a script call.
func (i *item) joins(o *item) bool { return i.slot == o.slot && i.plain == o.plain }

// items names the entries' keys and puts those together that may share a call.
func (r *Redis) items(entries []rowtide.Entry) ([]item, error) {
	items := make([]item, len(entries))
	together := true
	for n := range entries {
		i := &items[n]
		i.Entry = &entries[n]
		i.name = i.Key.Redis(r.prefix)
		i.plain = r.layout(i.Key.Module) == LayoutPlain
		if r.cluster {
			i.slot = slotOf(i.name)
			if i.plain && overwrite.Braced(i.name) {
				return nil, fmt.Errorf("write key %s of module %s: %w", i.name, i.Key.Module, ErrBraces)
			}
		}
		together = together && i.joins(&items[0])
	}
	if !together {
		slices.SortStableFunc(items, func(a, b item) int {
			if a.plain != b.plain {
				if a.plain {
					return 1
				}
				return -1
			}
			return int(a.slot) - int(b.slot)
		})
	}
	return items, nil
}

// lane writes its items in pipelines, one after the other, each until it is
// through.
func (r *Redis) lane(ctx context.Context, items []item, warn *warning) error {
	for part := range slices.Chunk(items, keysPerPipeline) {
		if err := r.until(ctx, part, warn); err != nil {
			return err
		}
	}
	return nil
}

func (r *Redis) until(ctx context.Context, items []item, warn *warning) error {
	wait := backoff.New(20*time.Millisecond, 2*time.Second)
	failing, loaded := false, false
	perCall := keysPerCall
	through := false
	defer func() {
		if failing {
			r.out.leave(func() {
				if through {
					r.log.Info("redis accepts writes again")
					r.obs.RedisAway(nil)
				}
			})
		}
	}()
	for {
		err := r.pipeline(ctx, items, perCall)
		if err == nil {
			through = true
			return nil
		}
		if errors.Is(err, ErrFenced) {
			return err // no outage: it stays so
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if isNoScript(err) && !loaded {
			loaded = true // once per refusal: a server that forgets at once is a fault
			if err = r.scripts.load(ctx, r.rdb); err == nil {
				continue
			}
		}
		loaded = false
		if strings.HasPrefix(err.Error(), "TRYAGAIN") {
			// The slot is moving and its keys are on both sides. Alone, each is
			// found on one of them.
			perCall = 1
		}
		if c, ok := r.rdb.(*redis.ClusterClient); ok {
			// By itself the client keeps to a dead primary for a minute
			// (github.com/redis/go-redis/issues/3979).
			c.ReloadState(ctx)
		}
		if !failing {
			failing = true
			r.out.enter()
		}
		r.tell(err)
		warn.refused(time.Now())
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// tell says once per outage that writes are refused, and once more for each
// module that has a key of another type, for only people can mend that.
func (r *Redis) tell(err error) {
	var wrong *wrongTypeError
	isWrong := errors.As(err, &wrong)
	module := ""
	if isWrong {
		module = wrong.module
	}
	r.out.news(module, func(first bool) {
		r.log.Warn("redis refuses writes, holding the source back until it accepts them", "err", err, "remedy", remedy(err))
		if first {
			r.obs.RedisAway(err)
		}
		if isWrong {
			r.obs.Overwrote(module, overwrite.WrongType, 1)
		}
	})
}

func isNoScript(err error) bool { return strings.HasPrefix(err.Error(), "NOSCRIPT") }
