package sidecar

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide/internal/backoff"
	"github.com/rowtide/rowtide/localsync"
)

// Server answers over Redis's protocol and over HTTP. Make it with [New], give it
// listeners by Serve, end it by Close.
type Server struct {
	cfg     Config
	modules *Modules
	cache   *localsync.Cache
	log     *slog.Logger
	version string
	started time.Time

	commands map[string]*command
	secret   [sha256.Size]byte

	life context.Context // of reads
	end  context.CancelFunc

	mu        sync.Mutex
	sessions  map[*session]struct{}
	listeners []net.Listener
	stopping  atomic.Bool // set under mu
	wg        sync.WaitGroup

	counts counts
}

type counts struct {
	ids, accepted, refused      atomic.Int64
	commands, hits, misses      atomic.Int64
	writes, errors, protocol    atomic.Int64
	slowReaders, requests, idle atomic.Int64
}

// Counts are a server's counters since New, and the connections open now.
type Counts struct {
	// Connections of Redis's protocol that are open.
	Connections int
	// Accepted and Refused connections; refused are those over the limit.
	Accepted, Refused int64
	// Commands that were answered, whatever the answer; Writes of them were refused
	// as writes and Errors answered with another error.
	Commands, Writes, Errors int64
	// Hits and Misses count keys.
	Hits, Misses int64
	// Cut connections, for malformed requests, for not taking replies, for silence.
	Malformed, Slow, Idle int64
	// Requests over HTTP.
	Requests int64
}

// New makes a server of a cache whose modules are in m. version is the program's.
func New(cfg Config, cache *localsync.Cache, m *Modules, version string, log *slog.Logger) *Server {
	s := &Server{
		cfg: cfg, modules: m, cache: cache, log: log, version: version, started: time.Now(),
		sessions: map[*session]struct{}{}, secret: sha256.Sum256([]byte(cfg.Password)),
	}
	s.commands = commandTable()
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Counts takes a snapshot.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	open := len(s.sessions)
	s.mu.Unlock()
	c := &s.counts
	return Counts{
		Connections: open, Accepted: c.accepted.Load(), Refused: c.refused.Load(),
		Commands: c.commands.Load(), Writes: c.writes.Load(), Errors: c.errors.Load(),
		Hits: c.hits.Load(), Misses: c.misses.Load(),
		Malformed: c.protocol.Load(), Slow: c.slowReaders.Load(), Idle: c.idle.Load(), Requests: c.requests.Load(),
	}
}

const (
	// A full table of file descriptors empties only as connections end: trying at
	// once again would burn a core meanwhile.
	acceptPause, acceptPauseMost = 5 * time.Millisecond, time.Second
)

// Serve accepts connections of Redis's protocol until Close, and then returns nil.
// It may be called for several listeners; Close closes them.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()
	pause := backoff.New(acceptPause, acceptPauseMost)
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			pause.Reset()
			s.accept(conn)
		case s.stopping.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.log.Warn("cannot accept a connection; is the limit of open files too low?", "error", err)
			_ = pause.Wait(s.life) // a server that ends has closed ln too
		}
	}
}

func (s *Server) accept(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() || len(s.sessions) >= s.cfg.MaxConnections {
		s.counts.refused.Add(1)
		// The system takes so few bytes at once.
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte("-ERR max number of clients reached\r\n"))
		conn.Close()
		return
	}
	s.counts.accepted.Add(1)
	c := newSession(s, conn, s.counts.ids.Add(1))
	s.sessions[c] = struct{}{}
	s.wg.Go(func() {
		c.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, c)
	})
}

// Close ends the serving of Redis's protocol: nothing more is accepted, requests
// that have arrived are answered, then connections end; those that are not done
// when ctx ends are cut. The cache stays open. It is called once.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	s.stopping.Store(true)
	for _, ln := range s.listeners {
		ln.Close()
	}
	for c := range s.sessions {
		// Wakes those that wait for a request; the others see stopping.
		_ = c.conn.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		s.mu.Lock()
		for c := range s.sessions {
			c.conn.Close()
		}
		s.mu.Unlock()
	}
	s.end()
	<-idle
}

// knows compares in a time that does not depend on where the texts differ.
func (s *Server) knows(password []byte) bool {
	given := sha256.Sum256(password)
	return subtle.ConstantTimeCompare(given[:], s.secret[:]) == 1
}
