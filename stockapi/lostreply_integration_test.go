//go:build integration

package stockapi_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/stockapi"
)

// cutter makes connections whose next replies are lost after the server has sent
// them: the command has run, and nobody hears of it.
type cutter struct{ lose atomic.Int64 }

type cutConn struct {
	net.Conn
	c *cutter
}

func (c cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.c.lose.Load() > 0 {
		c.c.lose.Add(-1)
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *cutter) client(t *testing.T) *redis.Client {
	opt := clientOptions(t)
	opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return cutConn{conn, c}, nil
	}
	opt.PoolSize, opt.ReadTimeout = 1, 5*time.Second
	rdb := redis.NewClient(opt)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestHold_LostReplyTakesOnce(t *testing.T) {
	var c cutter
	rdb := c.client(t)
	s := newShopOn(t, rdb, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 1})
	c.lose.Store(1)
	h, err := s.Hold(t.Context(), want("u", "k", item("A", 1)))
	if err != nil || h.State != stockapi.StateHeld {
		t.Fatalf("hold of the last unit with a lost reply: %+v %v", h, err)
	}
	if c.lose.Load() != 0 {
		t.Fatal("no reply was lost")
	}
	c.lose.Store(1)
	if h, err = s.Confirm(t.Context(), h.ID, "p"); err != nil || h.State != stockapi.StateConfirmed {
		t.Fatalf("confirm with a lost reply: %+v %v", h, err)
	}
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Sold: 1, Loaded: 1}); got != want {
		t.Fatalf("counters=%+v, want %+v", got, want)
	}
}

func TestHold_UnknownOutcomeIsNotAFailure(t *testing.T) {
	var c cutter
	rdb := c.client(t)
	s := newShopOn(t, rdb, stockapi.Config{Attempts: 2})
	s.load(t, "E", map[string]int64{"A": 1})
	c.lose.Store(1000)
	if _, err := s.Hold(t.Context(), want("u", "k", item("A", 1))); !errors.Is(err, stockapi.ErrUnknownOutcome) {
		t.Fatalf("hold without any reply: %v, want ErrUnknownOutcome", err)
	}
	c.lose.Store(0)
	h := s.mustHold(t, want("u", "k", item("A", 1)))
	if got, want := s.counters(t, "E", "A"), (stockapi.Counters{Held: 1, Loaded: 1}); got != want {
		t.Fatalf("after %+v: counters=%+v, want %+v", h, got, want)
	}
}
