package sidecar

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// flushAt is how much of a pipeline's replies is gathered before it is sent.
const flushAt = 64 << 10

// session is one connection of Redis's protocol.
type session struct {
	s    *Server
	conn net.Conn
	id   int64
	at   time.Time
	q    *requests
	reply
	authenticated bool
	quit          bool

	mu   sync.Mutex // CLIENT LIST of another connection reads these
	name string
	last string // command
}

func newSession(s *Server, conn net.Conn, id int64) *session {
	return &session{
		s: s, conn: conn, id: id, at: time.Now(), authenticated: s.cfg.Password == "",
		// One more for the command's name.
		q: newRequests(conn, s.cfg.MaxKeys+1, s.cfg.MaxRequest),
	}
}

// run answers until either side ends the connection.
func (c *session) run() {
	defer c.conn.Close()
	defer func() {
		if p := recover(); p != nil {
			c.s.log.Error("a connection ended by a fault in the program", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	for !c.quit {
		if !c.q.buffered() && !c.await() {
			return
		}
		if err := c.q.next(); err != nil {
			c.broken(err)
			return
		}
		if len(c.q.args) == 0 {
			continue
		}
		c.s.counts.commands.Add(1)
		c.dispatch()
		if len(c.b) > flushAt && !c.flush() {
			return
		}
	}
	c.flush()
}

// await sends what is answered and makes ready for the next request; false when
// the connection is to end.
func (c *session) await() bool {
	if !c.flush() {
		return false
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(c.s.cfg.IdleTimeout)); err != nil {
		return false
	}
	// After the deadline was set: Close sets stopping first and its own deadline then.
	return !c.s.stopping.Load()
}

// broken tells the client what it can be told.
func (c *session) broken(err error) {
	var p protocolError
	switch {
	case errors.As(err, &p):
		c.s.counts.protocol.Add(1)
		c.failErr(p)
		c.flush()
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.s.stopping.Load():
		c.s.counts.idle.Add(1)
	}
}

func (c *session) flush() bool {
	if len(c.b) == 0 {
		return true
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout)); err != nil {
		return false
	}
	_, err := c.conn.Write(c.b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.s.counts.slowReaders.Add(1)
	}
	c.b = c.b[:0]
	if cap(c.b) > flushAt {
		c.b = nil
	}
	return err == nil
}

// dispatch answers the present request.
func (c *session) dispatch() {
	name := lower(c.q.args[0])
	cmd, known := c.s.commands[name]
	began := len(c.b)
	switch {
	case !c.authenticated && (!known || !cmd.open):
		c.fail("NOAUTH Authentication required.")
	case writes[name]:
		c.s.counts.writes.Add(1)
		c.fail("READONLY " + strings.ToUpper(name) + " is refused: rowtide node only reads. Write to the database; the rowtide daemon is the one that writes the cache")
		return
	case !known:
		// A browser that was talked into sending HTTP here gets nowhere.
		c.quit = name == "post" || name == "host:"
		c.fail(unknownCommand(c.q.args))
	case c.q.large:
		c.fail(fmt.Sprintf("ERR the request is too large: at most %d keys (node.max_keys) and %d bytes (node.max_request); ask for fewer at a time", c.s.cfg.MaxKeys, c.s.cfg.MaxRequest))
	case !cmd.takes(len(c.q.args)):
		c.wrongArity(name)
	default:
		c.note(name)
		cmd.run(c, c.q.args)
	}
	if len(c.b) > began && c.b[began] == '-' {
		c.s.counts.errors.Add(1)
	}
}

func (c *session) note(name string) {
	if c.last == name { // only this goroutine writes it
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = name
}

// unknownCommand is Redis's sentence.
func unknownCommand(args [][]byte) string {
	const most = 128
	var b strings.Builder
	fmt.Fprintf(&b, "ERR unknown command '%.*s', with args beginning with: ", most, args[0])
	begin := b.Len()
	for _, a := range args[1:] {
		if b.Len()-begin >= most {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", most-(b.Len()-begin), a)
	}
	return b.String()
}

// lower is the ASCII lower case of a command's name.
func lower(name []byte) string {
	const longest = 32 // than any command
	if len(name) > longest {
		return string(name)
	}
	var stack [longest]byte
	b := append(stack[:0], name...)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
