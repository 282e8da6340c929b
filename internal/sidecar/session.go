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
	renew         bool // a request was read since the read deadline was set

	mu   sync.Mutex // CLIENT LIST of another connection reads these
	name string
	last string // command
}

func newSession(s *Server, conn net.Conn, id int64) *session {
	c := &session{s: s, conn: conn, id: id, at: time.Now(), authenticated: s.cfg.Password == "", renew: true}
	// One more for the command's name.
	c.q = newRequests(c, s.cfg.MaxKeys+1, s.cfg.MaxRequest)
	return c
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
		c.q.stranger = !c.authenticated
		if err := c.q.next(); err != nil {
			c.broken(err)
			return
		}
		c.renew = true
		if len(c.q.args) == 0 && !c.q.large {
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

var (
	errUnsent   = errors.New("replies could not be sent")
	errStopping = errors.New("the server stops")
)

// Read implements io.Reader for the requests. What is answered goes first: in one
// write for all that came together, and before the rest of a command is waited for.
func (c *session) Read(p []byte) (int, error) {
	if !c.flush() {
		return 0, errUnsent
	}
	if c.renew { // not for every byte that drips in
		c.renew = false
		if err := c.conn.SetReadDeadline(time.Now().Add(c.s.cfg.IdleTimeout)); err != nil {
			return 0, err
		}
		// After the deadline was set: Close sets stopping first and its own deadline then.
		if c.s.stopping.Load() {
			return 0, errStopping
		}
	}
	return c.conn.Read(p)
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

func (c *session) tooLarge() {
	c.fail(fmt.Sprintf("ERR the request is too large: at most %d keys (node.max_keys) and %d bytes (node.max_request); ask for fewer at a time", c.s.cfg.MaxKeys, c.s.cfg.MaxRequest))
}

// dispatch answers the present request.
func (c *session) dispatch() {
	var stack [longestName]byte
	name := stack[:0]
	if !c.q.nameless {
		name = appendLower(name, c.q.args[0])
	}
	cmd := c.s.commands[string(name)]
	began := len(c.b)
	switch {
	case c.q.nameless && c.authenticated:
		c.tooLarge()
	case !c.authenticated && (cmd == nil || !cmd.open):
		c.fail("NOAUTH Authentication required.")
	case cmd == nil && writes[string(name)]:
		c.s.counts.writes.Add(1)
		c.fail("READONLY " + strings.ToUpper(string(name)) + " is refused: rowtide node only reads. Write to the database; the rowtide daemon is the one that writes the cache")
		return
	case cmd == nil:
		// A browser that was talked into sending HTTP here gets nowhere.
		c.quit = string(name) == "post" || string(name) == "host:"
		c.fail(unknownCommand(c.q.args))
	case c.q.large:
		c.tooLarge()
	case !cmd.takes(len(c.q.args)):
		c.wrongArity(cmd.name)
	default:
		c.note(cmd.name)
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

// longestName is more than any command has.
const longestName = 32

// appendLower appends the ASCII lower case of a command's name; what is too long
// for one stays as it is.
func appendLower(dst, name []byte) []byte {
	if len(name) > longestName {
		return name
	}
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func lower(name []byte) string { return string(appendLower(nil, name)) }
