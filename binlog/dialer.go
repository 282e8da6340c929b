package binlog

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// dialer opens connections until it is shut.
type dialer struct {
	timeout time.Duration // for connecting, and for silence afterwards
	closed  atomic.Bool
}

var errShut = errors.New("connection is being closed")

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.closed.Load() {
		return nil, errShut
	}
	nd := net.Dialer{Timeout: d.timeout}
	c, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &idleConn{Conn: c, timeout: d.timeout}, nil
}

func (d *dialer) shut() { d.closed.Store(true) }

// idleConn fails a read that waits for longer than timeout. The library would
// set a deadline per packet, which costs a sixth of the reading of small
// transactions; moving it once in a quarter of the timeout is exact enough.
type idleConn struct {
	net.Conn
	timeout time.Duration
	set     time.Time
}

// Read implements net.Conn; one goroutine reads.
func (c *idleConn) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(c.set) > c.timeout/4 {
		if err := c.SetReadDeadline(now.Add(c.timeout)); err != nil {
			return 0, err
		}
		c.set = now
	}
	return c.Conn.Read(p)
}
