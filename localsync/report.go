package localsync

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// ReportFormat is the format of a [NodeReport]. New fields do not raise it; a
// field with a new meaning does.
const ReportFormat = 1

const (
	// reportPlaces bounds how many nodes are seen. A node takes any free place, so
	// that reporting needs no right but to get and set, and reading no index and no
	// SCAN.
	reportPlaces = 1024
	// reportTries is how many taken places a node passes over per report: even with
	// 512 nodes one in 250 reports is late.
	reportTries = 8
	// reportLives is how many intervals a report lives: two may go missing.
	reportLives = 3
)

// NodeReport is what a node tells of itself every [Options].ReportEvery.
type NodeReport struct {
	Format int `json:"format"`
	// Node is the node's name, Instance tells nodes of one name apart.
	Node     string `json:"node"`
	Instance uint64 `json:"instance,string"`
	// At is the node's clock; Started is when its cache was opened.
	At      time.Time `json:"at"`
	Started time.Time `json:"started"`
	// Degraded is whether any partition of the bus is silent.
	Degraded bool `json:"degraded"`
	Stats
}

func (c *Cache) nodeReport() NodeReport {
	s := c.Stats()
	return NodeReport{
		Format: ReportFormat, Node: c.opt.Node, Instance: c.instance,
		At: c.opt.Now().UTC(), Started: c.clock.start.UTC(), Degraded: s.Bus.Silent > 0, Stats: s,
	}
}

// Nodes are the reports of the nodes that live and report under prefix, by name.
// It reads 1024 names in one pipeline: for a console, not for every request.
// Reports of a newer format are left out.
func Nodes(ctx context.Context, rdb redis.UniversalClient, prefix string) ([]NodeReport, error) {
	cmds := make([]*redis.StringCmd, reportPlaces)
	// Pipelined's own error is the first of those looked at below.
	_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range cmds {
			cmds[i] = p.Get(ctx, reportKey(prefix, i))
		}
		return nil
	})
	byInstance := map[uint64]NodeReport{}
	for _, cmd := range cmds {
		b, err := cmd.Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the reports of nodes: %w", err)
		}
		var r NodeReport
		if json.Unmarshal(b, &r) != nil || r.Format != ReportFormat {
			continue
		}
		// A node that has just changed its place is in both.
		if old, ok := byInstance[r.Instance]; !ok || r.At.After(old.At) {
			byInstance[r.Instance] = r
		}
	}
	out := make([]NodeReport, 0, len(byInstance))
	for _, r := range byInstance {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b NodeReport) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Instance, b.Instance))
	})
	return out, nil
}

func reportKey(prefix string, place int) string { return prefix + ":~report:" + strconv.Itoa(place) }

// defaultNode is the default of Options.Node.
func defaultNode() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return host + ":" + strconv.Itoa(os.Getpid())
}

var errNoPlace = errors.New("all places looked at are taken by other nodes")

// reporter writes the node's reports. Only its own goroutine uses it.
type reporter struct {
	c     *Cache
	place int
	away  bool // the last report did not get through
}

// run reports until ctx ends, and then takes the report back.
func (r *reporter) run(ctx context.Context) {
	r.place = rand.IntN(reportPlaces)
	t := time.NewTicker(r.c.opt.ReportEvery)
	defer t.Stop()
	for {
		// To its end, or what is under way could land after the farewell.
		r.told(ctx, r.report(context.WithoutCancel(ctx)))
		select {
		case <-t.C:
		case <-ctx.Done():
			if !r.away {
				// No right to delete is needed: it ends by itself at once.
				_ = r.put(context.WithoutCancel(ctx), time.Millisecond) // or within three intervals
			}
			return
		}
	}
}

// told logs changes of state only.
func (r *reporter) told(ctx context.Context, err error) {
	log := r.c.opt.Logger
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !r.away:
		log.Warn("cannot report to redis, the daemon does not list this node; reads are not affected",
			"node", r.c.opt.Node, "error", err, "remedy", "allow set under the prefix, or set ReportEvery to -1")
	case err == nil && r.away:
		log.Info("reports to redis again", "node", r.c.opt.Node)
	}
	r.away = err != nil
}

// report writes to the node's place, or to another if somebody else has it. Two
// nodes may take one at once: the one that is overwritten moves on next time.
func (r *reporter) report(ctx context.Context) error {
	for range reportTries {
		free, err := r.free(ctx)
		if err != nil {
			return err
		}
		if free {
			return r.put(ctx, reportLives*r.c.opt.ReportEvery)
		}
		r.place = rand.IntN(reportPlaces)
	}
	return errNoPlace
}

func (r *reporter) free(ctx context.Context) (bool, error) {
	b, err := redisCall(ctx, r.c, func(ctx context.Context) ([]byte, error) {
		return r.c.opt.Redis.Get(ctx, r.name()).Bytes()
	})
	if errors.Is(err, redis.Nil) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	// Only who says that it has the place has it, also a node of a newer format.
	var there NodeReport
	_ = json.Unmarshal(b, &there)
	return there.Instance == 0 || there.Instance == r.c.instance, nil
}

func (r *reporter) put(ctx context.Context, ttl time.Duration) error {
	rep := r.c.nodeReport()
	rep.Bus.ByPartition = nil // small; the debug page has it
	b, err := json.Marshal(rep)
	if err != nil {
		return err
	}
	_, err = redisCall(ctx, r.c, func(ctx context.Context) (string, error) {
		return r.c.opt.Redis.Set(ctx, r.name(), b, ttl).Result()
	})
	return err
}

func (r *reporter) name() string { return reportKey(r.c.opt.Prefix, r.place) }

// redisCall is a bounded call beside the reads' way: its failures do not keep the
// reads off Redis.
func redisCall[T any](ctx context.Context, c *Cache, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.RedisTimeout)
	defer cancel()
	return bounded(ctx, c.wg.Go, call)
}
