package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/backoff"
	"github.com/rowtide/rowtide/publisher"
)

// verifyBatch is how many keys are compared per round trip.
const verifyBatch = 500

// verifier compares modules with the database, key by key, both ways. What it
// keeps is bounded by the batch and by maxDiffs, not by the number of keys.
type verifier struct {
	db     *binlog.Reader
	rdb    redis.UniversalClient
	prefix string
	behind *pursuit
	// generations, by module, as they were at the start: an entry of an older one is
	// none, unless its version is not below Since.
	generations map[string]rowtide.ModuleControl

	batch     int           // keys; 0: verifyBatch
	rate      *rate.Limiter // of keys; nil: none
	maxDiffs  int           // kept per module; 0: none
	mayMiss   bool          // what is missing is counted only
	repair    *repairer     // nil: differences are only told
	progress  *progress     // nil: none
	truncated int           // bytes of a value in a difference; 0: all
}

func (d *daemon) verifier() (*verifier, error) {
	p, err := d.pursuit()
	if err != nil {
		return nil, err
	}
	v := &verifier{db: d.source.Reader(), rdb: d.rdb, prefix: d.cfg.Redis.Prefix, behind: p, maxDiffs: defaultMaxDiffs}
	v.generations, err = d.generations()
	return v, err
}

// generations reads the control topic, if there is one, and gives the modules
// theirs.
func (d *daemon) generations() (_ map[string]rowtide.ModuleControl, err error) {
	control := d.control
	if control == nil {
		topics, err := d.kafka.Topics()
		if err != nil || !slices.Contains(topics, d.cfg.Kafka.ControlTopic) {
			return nil, err
		}
		if control, err = publisher.NewControl(d.cfg.Kafka, d.kafka, d.log); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, control.Close()) }()
	}
	out := map[string]rowtide.ModuleControl{}
	for _, mc := range control.State() {
		out[mc.Name] = mc
	}
	for _, m := range d.modules {
		m.SetGeneration(max(m.Generation(), out[m.Config().Name].Generation))
	}
	return out, nil
}

// check is the comparison of one module.
type check struct {
	*verifier
	m *aggregator.Module
	x *aggregator.Expectation
	r *moduleReport
}

// module compares one module, both ways.
func (v *verifier) module(ctx context.Context, m *aggregator.Module) (*moduleReport, error) {
	c, err := v.check(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := c.rows(ctx); err != nil {
		return c.r, err
	}
	return c.r, c.extras(ctx)
}

func (v *verifier) check(ctx context.Context, m *aggregator.Module) (*check, error) {
	cols, types, err := v.db.Types(ctx, m.Table())
	if err != nil {
		return nil, err
	}
	x, err := m.Expect(cols, types)
	return &check{verifier: v, m: m, x: x, r: &moduleReport{Module: m.Config().Name, Differences: []difference{}}}, err
}

// rows compares every key that the database has.
func (c *check) rows(ctx context.Context) error {
	if err := c.progress.begin(ctx, c); err != nil {
		return err
	}
	return c.expected(ctx, func(batch []aggregator.Expected) error {
		c.r.Keys += len(batch)
		return c.compare(ctx, batch)
	})
}

// expected hands every key that the database has to fn, in batches. A key may
// come twice.
func (c *check) expected(ctx context.Context, fn func([]aggregator.Expected) error) error {
	return c.db.Walk(ctx, c.m.Table(), c.x.Columns(), c.size(), func(rows [][]rowtide.Value) error {
		if err := c.pace(ctx, len(rows)); err != nil {
			return err
		}
		var batch []aggregator.Expected
		err := c.retry(ctx, func() (err error) {
			batch, err = c.x.Rows(rows, c.ask(ctx, false))
			return err
		})
		if err != nil {
			return err
		}
		return fn(batch)
	})
}

// size of a batch: at most a second's worth of the rate.
func (c *check) size() int {
	size := cmp.Or(c.batch, verifyBatch)
	if c.rate != nil {
		size = min(size, c.rate.Burst())
	}
	return size
}

func (c *check) pace(ctx context.Context, keys int) error {
	c.progress.add(keys)
	if c.rate == nil {
		return nil
	}
	return c.rate.WaitN(ctx, min(keys, c.rate.Burst()))
}

// ask makes an [aggregator.Select]. Locking SELECTs wait for the rows of
// transactions that the log shows already.
func (c *check) ask(ctx context.Context, locking bool) aggregator.Select {
	return func(query string, args []any, row func([]string, []rowtide.Value) error) error {
		if locking {
			query = c.db.Locking(query)
		}
		return c.db.Each(ctx, query, args, row)
	}
}

// queryTries is how often a query is made that a deadlock, a lock wait or a
// broken connection ended.
const queryTries = 6

func (c *check) retry(ctx context.Context, do func() error) error {
	wait := backoff.New(20*time.Millisecond, time.Second)
	for try := 1; ; try++ {
		err := do()
		var t interface{ Temporary() bool }
		if err == nil || try == queryTries || !errors.As(err, &t) || !t.Temporary() {
			return err
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// cannotBe reports whether the server refused a key's text as no value of the
// column, so that no row can have it.
func cannotBe(err error) bool {
	var my *mysql.MySQLError
	if !errors.As(err, &my) {
		return false
	}
	switch my.Number {
	case 1292, 1366, 1525, 4177, // wrong value for the type
		1267, 1270, 1300, 3854, 3988: // text that the column's character set does not have
		return true
	}
	return false
}

// byKeys asks about keys that came from Redis: all at once, or one by one when the
// server refuses the text of one.
func (c *check) byKeys(ctx context.Context, ids []string, ask func(ids []string) error) error {
	err := c.retry(ctx, func() error { return ask(ids) })
	if !cannotBe(err) {
		return err
	}
	for i := range ids {
		err := c.retry(ctx, func() error { return ask(ids[i : i+1]) })
		if err != nil && !cannotBe(err) {
			return err
		}
	}
	return nil
}

// of asks what keys must hold.
func (c *check) of(ctx context.Context, ids []string, locking bool) ([]aggregator.Expected, error) {
	out := make([]aggregator.Expected, len(ids))
	place := make(map[string]int, len(ids))
	for i, id := range ids {
		out[i].ID, place[id] = id, i
	}
	err := c.byKeys(ctx, ids, func(ids []string) error {
		wants, err := c.x.Of(ids, c.ask(ctx, locking))
		if err == nil {
			for _, w := range wants {
				out[place[w.ID]] = w
			}
		}
		return err
	})
	return out, err
}

// compare reads the batch from Redis, and settles what differs. What the module's
// filter leaves out is the scan's matter.
func (c *check) compare(ctx context.Context, batch []aggregator.Expected) error {
	batch = slices.DeleteFunc(batch, func(want aggregator.Expected) bool { return want.Payload == nil && want.Err == nil })
	ids := make([]string, len(batch))
	for i := range batch {
		ids[i] = batch[i].ID
	}
	got, err := c.read(ctx, ids)
	if err != nil {
		return err
	}
	var suspects []string
	for i, want := range batch {
		if c.differ(want, &got[i]) != nil {
			suspects = append(suspects, want.ID)
		}
	}
	return c.settle(ctx, suspects)
}

// extras scans the module's keys in Redis for values that the database does not
// have.
func (c *check) extras(ctx context.Context) error {
	start := c.key("").Redis(c.prefix)
	return scanBatches(ctx, c.rdb, globEscape(start)+"*", func(names []string) error {
		for len(names) > 0 {
			part := names[:min(len(names), c.size())]
			names = names[len(part):]
			if err := c.pace(ctx, len(part)); err != nil {
				return err
			}
			ids := make([]string, len(part))
			for i, n := range part {
				ids[i] = n[len(start):]
			}
			if err := c.unfounded(ctx, ids); err != nil {
				return err
			}
		}
		return nil
	})
}

// unfounded settles those of the keys that hold something without a row.
func (c *check) unfounded(ctx context.Context, ids []string) error {
	c.r.Scanned += len(ids)
	ids, err := c.holding(ctx, ids)
	if err != nil || len(ids) == 0 {
		return err
	}
	present := map[string]bool{}
	err = c.byKeys(ctx, ids, func(ids []string) error {
		there, err := c.x.Present(ids, c.ask(ctx, false))
		if err == nil {
			for id := range there {
				present[id] = true
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	var suspects []string
	for _, id := range ids {
		if !present[id] {
			suspects = append(suspects, id)
		}
	}
	return c.settle(ctx, suspects)
}

// scanCount is how many keys of any name a server walks past per call.
const scanCount = 1000

// scanBatches hands the keys of the pattern to fn, on all primaries of a cluster.
// A key may come twice.
func scanBatches(ctx context.Context, rdb redis.UniversalClient, pattern string, fn func([]string) error) error {
	node := func(ctx context.Context, c redis.Cmdable) error {
		for cursor := uint64(0); ; {
			names, next, err := c.Scan(ctx, cursor, pattern, scanCount).Result()
			if err != nil {
				return fmt.Errorf("scan redis: %w", err)
			}
			if len(names) > 0 {
				if err := fn(names); err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		// The client asks the primaries side by side.
		var mu sync.Mutex
		one := fn
		fn = func(names []string) error {
			mu.Lock()
			defer mu.Unlock()
			return one(names)
		}
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return node(ctx, c) })
	}
	return node(ctx, rdb)
}
