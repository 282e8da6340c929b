package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
)

// errDeposed means that another daemon of the same name was elected. Stand by.
var errDeposed = errors.New("another daemon was elected")

const (
	// renewals per lease: so many may fail before a standby may take over.
	renewals = 4
	// polls per lease: a standby notices a free one that soon.
	polls = 20
)

// leaseScript elects (ARGV[3] is 0) or renews. The lease is a key that ends by
// itself, the newest term one that stays. A lease that has ended is renewed too, as
// long as nobody was elected since. Terms grow with the clock (ARGV[4]), so that they
// do even where Redis has lost the newest: evicted it, or failed over to a replica
// that never had it. The script uses GET and SET only, for which the daemon's user
// has the rights.
var leaseScript = redis.NewScript(`
local holder = redis.call('GET', KEYS[1]) or ''
local newest = redis.call('GET', KEYS[2])
local term = tonumber(newest or '0')
local mine = tonumber(ARGV[3])
if holder ~= '' and holder ~= ARGV[1] then return 0 end
if mine == 0 then
  mine = math.max(term + 1, tonumber(ARGV[4]))
elseif term ~= mine and (newest or holder == '') then
  return 0
end
if term ~= mine then
  redis.call('SET', KEYS[2], string.format('%.0f', mine))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return mine`)

// lease elects one of the daemons of one name. Two can believe to be elected for
// a moment, when one of them was paused: versions make what both write agree, and
// the term keeps the older one from moving the checkpoint and, but for a cluster,
// from writing entries.
type lease struct {
	rdb   redis.UniversalClient
	keys  []string
	token string
	ttl   time.Duration
	term  uint64 // 0: not elected
	log   *slog.Logger

	stop context.CancelFunc // ends the renewals; nil before keep
	kept chan struct{}      // closed at their end
	lost error              // why they ended, of kept
}

func newLease(rdb redis.UniversalClient, prefix, name string, ttl time.Duration, log *slog.Logger) *lease {
	// Braces: a cluster must keep both in one place.
	return &lease{
		rdb: rdb, token: rand.Text(), ttl: ttl, log: log,
		keys: []string{prefix + ":lease:{" + name + "}", prefix + ":term:{" + name + "}"},
	}
}

// termKey is where the term of the newest election stands.
func (l *lease) termKey() string { return l.keys[1] }

// win blocks until this daemon is elected. A Redis that does not answer is waited
// for.
func (l *lease) win(ctx context.Context) error {
	tick := time.NewTicker(l.ttl / polls)
	defer tick.Stop()
	told, away := false, false
	for {
		term, err := l.call(ctx, l.ttl, 0)
		if err == nil && term > 0 {
			l.term = term
			l.log.Info("elected", "term", term)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !away {
			away = true
			l.log.Warn("the lease cannot be asked for, trying again", "err", err)
		}
		if err == nil && !told {
			told = true
			l.log.Info("standing by", "lease", l.keys[0])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keep renews the lease until release. It begins with the election: what a daemon
// has to do before its first change may take longer than a lease.
func (l *lease) keep() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.kept = stop, make(chan struct{})
	go func() {
		defer close(l.kept)
		l.lost = l.renew(ctx)
	}()
}

// hold blocks until ctx ends (nil) or another daemon has the lease.
func (l *lease) hold(ctx context.Context) error {
	select {
	case <-l.kept:
		return l.lost
	case <-ctx.Done():
		return nil
	}
}

// renew renews the lease until ctx ends (nil) or another daemon has it. While Redis
// is away nobody else can be elected, so the work goes on.
func (l *lease) renew(ctx context.Context) error {
	tick := time.NewTicker(l.ttl / renewals)
	defer tick.Stop()
	away := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		term, err := l.call(ctx, l.ttl, l.term)
		switch {
		case ctx.Err() != nil:
			return nil // asked to stop
		case err != nil && !away:
			away = true
			l.log.Warn("the lease cannot be renewed, trying again", "err", err)
		case err == nil && term == 0:
			return fmt.Errorf("term %d: %w", l.term, errDeposed)
		case err == nil && away:
			away = false
			l.log.Info("the lease is renewed again")
		}
	}
}

// release lets a standby take over at once. Nothing can be deleted under the
// daemon's rights, but a key can be made to end.
func (l *lease) release() {
	if l.term == 0 {
		return
	}
	if l.stop != nil {
		l.stop()
		<-l.kept // a renewal under way would take it again
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = l.call(ctx, time.Millisecond, l.term) // if Redis is away the lease ends by itself
	l.term = 0
}

func (l *lease) call(ctx context.Context, ttl time.Duration, term uint64) (uint64, error) {
	// A Redis that hangs must not make a renewal late by more than one.
	ctx, cancel := context.WithTimeout(ctx, l.ttl/renewals)
	defer cancel()
	ask := func() (uint64, error) {
		return leaseScript.EvalSha(ctx, l.rdb, l.keys, l.token, ttl.Milliseconds(), term, time.Now().UnixMilli()).Uint64()
	}
	n, err := ask()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err = leaseScript.Load(ctx, l.rdb).Err(); err == nil {
			n, err = ask()
		}
	}
	return n, err
}
