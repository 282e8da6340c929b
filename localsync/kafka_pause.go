package localsync

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// fetchPause is how long a node leaves a broker alone between an answer and its next
// request. A fetch is answered as soon as one partition has one record, so that
// without it a broadcast over twelve partitions is fetched in pieces, by every node:
// that costs brokers and nodes more than the pause costs a record, which is half of
// it on average, and nothing while fewer than some 200 broadcasts come a second.
const fetchPause = 3 * time.Millisecond

// paused makes all of c's connections pause, in place of a wait that the protocol
// does not have: fetch.min.bytes would hold back what comes alone, too.
func paused(c *sarama.Config) {
	d := dialer(&net.Dialer{Timeout: c.Net.DialTimeout, KeepAlive: c.Net.KeepAlive, LocalAddr: c.Net.LocalAddr})
	if c.Net.Proxy.Enable {
		d = c.Net.Proxy.Dialer
	}
	c.Net.Proxy.Enable, c.Net.Proxy.Dialer = true, pausing{d}
}

type dialer interface {
	Dial(network, addr string) (net.Conn, error)
}

type pausing struct{ dialer }

func (p pausing) Dial(network, addr string) (net.Conn, error) {
	conn, err := p.dialer.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return &pausingConn{Conn: conn, opened: time.Now()}, nil
}

type pausingConn struct {
	net.Conn
	opened time.Time
	heard  atomic.Int64 // the last bytes, since opened; 0 before any
}

func (c *pausingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard.Store(int64(time.Since(c.opened)))
	return n, err
}

func (c *pausingConn) Write(b []byte) (int, error) {
	if heard := c.heard.Load(); heard > 0 {
		if since := time.Since(c.opened) - time.Duration(heard); since < fetchPause {
			<-time.After(fetchPause - since)
		}
	}
	return c.Conn.Write(b)
}
