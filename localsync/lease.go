package localsync

import (
	"context"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/overwrite"
)

// leaseScript is the source of the script; its head comment documents it.
//
//go:embed lease.lua
var leaseScript string

const (
	// nodeName and leaseToken are lengths in bytes, which the script counts on.
	nodeName   = 16
	leaseToken = 32
)

// leases is how the nodes of a fleet agree on who loads a key that Redis lacks
// or has too old: one takes a short lease in Redis and loads, the others note
// their names in it, are told when it is over, and read Redis again. Nothing
// depends on a lease but the number of loads: a node that cannot take one, or
// has waited long enough, loads for itself, and versions decide as always.
type leases struct {
	remote *remote
	prefix string
	name   string // this node's
	wakes  *wakes
}

func newLeases(c *Cache) *leases {
	name := fmt.Sprintf("%016x", rand.Uint64())
	return &leases{remote: c.remote, prefix: c.opt.Prefix, name: name, wakes: &wakes{
		rdb: c.opt.Redis, channel: channelOf(c.opt.Prefix, name), timeout: c.opt.RedisTimeout,
		log: c.opt.Logger, life: c.life, waiting: map[uint64][]*queue{},
	}}
}

// key is the lease's key, in the cluster slot of the key that is loaded: the
// script looks at both.
func (l *leases) key(name string) string {
	if strings.ContainsAny(name, "{}") {
		return l.prefix + ":~lease:" + name
	}
	return l.prefix + ":~lease:{" + name + "}"
}

// lease asks for the right to load fs, all in one round trip. Those in mine are to
// be loaded here, those in moved have changed in Redis since they were read, and
// those in q are being loaded by other nodes. q is nil if there are none.
func (m *core) lease(ctx context.Context, a *attempt, fs []*flight) (mine, moved []*flight, q *queue) {
	var asked []*flight
	for _, f := range fs {
		if m.shares(a, f) {
			asked = append(asked, f)
		} else {
			mine = append(mine, f)
		}
	}
	if len(asked) == 0 {
		return mine, nil, nil
	}
	l := m.c.leases
	// Before asking: the answer may be old by the time that it is here.
	q = l.wakes.enter(asked)
	answers, tokens, err := l.take(ctx, m, asked)
	if err != nil {
		m.stats.redisErrors.Add(1)
		l.wakes.all(q)
		return append(mine, asked...), nil, nil
	}
	var gone []*flight
	for i, f := range asked {
		switch {
		case answers[i] == "held" && !f.refresh:
			continue
		case answers[i] == "held" && m.leaveAsItIs(f):
		case answers[i] == "moved" && !a.last:
			moved = append(moved, f)
		case answers[i] == "taken":
			m.stats.leases.Add(1)
			f.token = tokens[i]
			mine = append(mine, f)
		default: // the server refused
			mine = append(mine, f)
		}
		gone = append(gone, f)
	}
	l.wakes.leave(q, gone)
	if len(gone) == len(asked) {
		q = nil
	}
	return mine, moved, q
}

// shares reports whether a load of f now could spare other nodes theirs.
func (m *core) shares(a *attempt, f *flight) bool {
	switch {
	case m.load == nil, m.policy.leaseWait < 0, f.alone, f.unread, f.force:
		return false // f.force: Redis was not read
	case !m.informed(f.part):
		return false // Redis will not be given it
	}
	claim := m.claim(a, f)
	return claim > 0 && claim >= f.need()
}

// leaveAsItIs ends a refresh that another node does: Redis will have its result
// when this node looks again.
func (m *core) leaveAsItIs(f *flight) bool {
	r, v := m.look(f.name, f.hash, 0)
	if v == absent {
		return false
	}
	m.c.store.hush(f.hash, m.c.now(), true)
	m.land(f, r)
	return true
}

func (l *leases) take(ctx context.Context, m *core, fs []*flight) (answers, tokens []string, err error) {
	ms := max(m.policy.leaseWait/2, time.Millisecond).Milliseconds()
	calls := make([]scriptCall, len(fs))
	answers, tokens = make([]string, len(fs)), make([]string, len(fs))
	for i, f := range fs {
		name, waiter := m.c.redisName(&f.slot), l.name
		if f.refresh {
			waiter = ""
		}
		tokens[i] = fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
		calls[i] = scriptCall{l.remote.lease, []string{l.key(name), name}, []any{"take", tokens[i], ms, f.seen, waiter}}
	}
	cmds, err := l.remote.run(ctx, calls)
	if err != nil {
		return nil, nil, err
	}
	for i, cmd := range cmds {
		answers[i], _ = cmd.Text() // refused by the server: loaded here
	}
	return answers, tokens, nil
}

// free is the call that ends f's lease.
func (m *core) free(f *flight) scriptCall {
	l := m.c.leases
	return scriptCall{l.remote.lease, []string{l.key(m.c.redisName(&f.slot))}, []any{"free", f.token}}
}

// fill offers loaded values to Redis and ends their leases, in one round trip.
func (m *core) fill(ctx context.Context, fs []*flight, values []filling) ([]overwrite.Result, error) {
	var held []*flight
	var ends []scriptCall
	for _, f := range fs {
		if f.token != "" {
			held, ends = append(held, f), append(ends, m.free(f))
		}
	}
	results, freed, err := m.c.remote.fill(ctx, values, ends)
	if err != nil {
		return nil, err
	}
	for i, f := range held {
		f.freed(freed[i])
	}
	for i, f := range fs {
		f.shared = results[i] != overwrite.WrongType
	}
	return results, nil
}

// freed takes note of free's answer.
func (f *flight) freed(cmd *redis.Cmd) {
	if names, err := cmd.Text(); err == nil {
		f.waiters, f.token = names, ""
	}
}

// release ends the leases that fs still hold and tells those who wait: to look
// where the result is in Redis, to load for themselves where it is not. Failures
// are nobody's loss but of time: leases end by themselves, and so do waits.
func (m *core) release(ctx context.Context, fs []*flight) {
	ctx = context.WithoutCancel(ctx)
	var held []*flight
	var calls []scriptCall
	for _, f := range fs {
		if f.token != "" {
			held, calls = append(held, f), append(calls, m.free(f))
		}
	}
	if len(held) > 0 {
		if cmds, err := m.c.remote.run(ctx, calls); err == nil {
			for i, f := range held {
				f.freed(cmds[i])
			}
		}
	}
	news := map[string][]byte{}
	for _, f := range fs {
		how := fend
		if f.shared {
			how = look
		}
		for at := 0; at+nodeName <= len(f.waiters); at += nodeName {
			node := f.waiters[at : at+nodeName]
			news[node] = appendNews(news[node], how, f.hash)
		}
		f.token, f.waiters = "", ""
	}
	if len(news) > 0 {
		m.c.remote.publish(ctx, m.c.opt.Prefix, news)
	}
}

// standBy waits until the loads of other nodes have ended, and flies on as they
// do. A flight that has waited long enough loads for itself.
func (m *core) standBy(ctx context.Context, a *attempt, q *queue, n int) {
	w := m.c.leases.wakes
	var flights sync.WaitGroup
	defer flights.Wait()
	goOn := func(fs []*flight, alone bool) {
		for _, f := range fs {
			f.alone = f.alone || alone
		}
		if len(fs) > 0 {
			flights.Go(func() { m.fly(ctx, fs, n) })
		}
	}
	slice := time.NewTimer(m.patience(q))
	defer slice.Stop()
	if !w.listen() {
		goOn(w.all(q), true)
		return
	}
	for {
		select {
		case <-q.signal:
			looks, fends := w.take(q)
			goOn(looks, false)
			if len(fends) > 0 {
				flights.Go(func() {
					m.scatter(ctx)
					goOn(fends, true)
				})
			}
			if len(q.flights) == 0 {
				return
			}
		case <-slice.C:
			rest := w.all(q)
			now := time.Now()
			for _, f := range rest {
				if !now.Before(f.giveUp) {
					f.alone = true
					m.stats.leaseTimeouts.Add(1)
				}
			}
			goOn(rest, false)
			return
		case <-ctx.Done():
			for _, f := range w.all(q) {
				m.fail(a, f, ctx.Err())
			}
			return
		}
	}
}

// patience is how long to wait now: until the lease must have ended, or the time
// that the module gives is up. Both are jittered, so that a dead holder's heirs do
// not all come at once.
func (m *core) patience(q *queue) time.Duration {
	now, all := time.Now(), m.policy.leaseWait
	slice := time.Duration(float64(all) / 2 * (1 + 0.2*rand.Float64()))
	for _, fs := range q.flights {
		for _, f := range fs {
			if f.giveUp.IsZero() {
				m.stats.leaseWaits.Add(1)
				f.giveUp = now.Add(time.Duration(float64(all) * (0.8 + 0.2*rand.Float64())))
			}
			slice = min(slice, max(f.giveUp.Sub(now), 0))
		}
	}
	return slice
}

// scatter waits for a moment, a random one: everybody was sent off together.
func (m *core) scatter(ctx context.Context) {
	t := time.NewTimer(time.Duration(rand.Int64N(int64(m.policy.leaseWait)/10 + 1)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
