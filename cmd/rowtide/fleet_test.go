package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// hang is a Redis that takes requests and does not answer.
type hang struct{ asked atomic.Int64 }

func (*hang) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (*hang) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *hang) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.asked.Add(1)
		<-ctx.Done()
		for _, c := range cmds {
			c.SetErr(ctx.Err())
		}
		return ctx.Err()
	}
}

// However many ask while Redis hangs, it is asked once, and all have their error.
func TestFleet_HangingRedisIsAskedOnceForAll(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer rdb.Close()
	var h hang
	rdb.AddHook(&h)
	f := newFleet(rdb, "rowtide", prometheus.NewRegistry())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 20 {
		wg.Go(func() {
			if _, err := f.look(ctx); err != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if h.asked.Load() != 1 || failed.Load() != 20 || ctx.Err() != nil {
		t.Errorf("asked %d times, %d errors, %v; want once, 20 and in time", h.asked.Load(), failed.Load(), ctx.Err())
	}
}
