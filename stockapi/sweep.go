package stockapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Run expires holds whose deadline and grace have passed, until ctx is done; then
// it returns nil. Any number of processes may run it: each hold is judged by the
// script. Redis being away is reported once and retried.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.SweepEvery)
	defer tick.Stop()
	failing := false
	for {
		_, err := s.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			s.deps.Logger.Warn("expiry of holds is failing", "error", err)
		case err == nil && failing:
			s.deps.Logger.Info("expiry of holds works again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep expires everything that is due in all cells now and returns how many holds
// it expired. A cell that fails does not keep the others from being swept.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	list, err := cells(ctx, s.deps, s.cfg.Prefix)
	if err != nil {
		return 0, err
	}
	var total int
	var errs []error
	for _, c := range list {
		n, err := s.sweepCell(ctx, c)
		total += n
		if err != nil {
			errs = append(errs, fmt.Errorf("expire holds of %s: %w", c, err))
		}
	}
	return total, errors.Join(errs...)
}

func (s *Service) sweepCell(ctx context.Context, c Cell) (int, error) {
	total := 0
	for {
		ids, err := s.due(ctx, c)
		if err != nil || len(ids) == 0 {
			return total, err
		}
		n, settled, err := s.expire(ctx, c, ids)
		total += n
		// A batch that settled nothing (a frozen cell) would come again and again.
		if err != nil || settled == 0 || len(ids) < s.cfg.SweepBatch {
			return total, err
		}
	}
}

// due lists holds whose hard deadline has passed by the clock of Redis.
func (s *Service) due(ctx context.Context, c Cell) ([]string, error) {
	now, err := s.deps.Redis.Time(ctx).Result()
	if err != nil {
		return nil, err
	}
	return s.deps.Redis.ZRangeByScore(ctx, keysOf(s.cfg.Prefix, c).due(), &redis.ZRangeBy{
		Min: "-inf", Max: itoa(now.UnixMilli()), Count: int64(s.cfg.SweepBatch),
	}).Result()
}

// expire returns how many holds it expired, and how many left the list of what is
// due, whoever ended them.
func (s *Service) expire(ctx context.Context, c Cell, ids []string) (expired, settled int, err error) {
	k := keysOf(s.cfg.Prefix, c)
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = k.hold(id)
	}
	packed, err := s.deps.Redis.MGet(ctx, names...).Result()
	if err != nil {
		return 0, 0, err
	}
	keys, args := k.head(), []any{s.cfg.Retention.Milliseconds()}
	for i, id := range ids {
		user := ""
		if text, ok := packed[i].(string); ok {
			rec, err := parseRecord(text)
			if err != nil {
				return 0, 0, fmt.Errorf("hold %s: %w", id, err)
			}
			user = rec.user
		}
		keys = append(keys, names[i], k.user(user))
		args = append(args, id)
	}
	start := time.Now()
	reply, err := run(ctx, s.deps.Redis, s.lua.expire, keys, args...)
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	for _, code := range reply {
		switch code {
		case "OK":
			s.deps.Observer.Operation("expire", "ok", took/time.Duration(len(reply)))
			expired++
			settled++
		case "DONE", "NONE":
			settled++
		}
	}
	return expired, settled, nil
}
