package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout bounds one start when the caller's context does not. Kafka
	// on a busy two-core machine has been seen to need 15 s.
	startTimeout = 90 * time.Second
	// stopTimeout is how long a server gets for an orderly end before it is
	// killed. MySQL and Kafka need about two seconds.
	stopTimeout = 30 * time.Second
	// killTimeout bounds the wait for the kernel to carry out a SIGKILL.
	killTimeout = 10 * time.Second
	// probeEvery is the pause between two attempts to connect. It bounds how
	// much later than the server itself we notice that it is up.
	probeEvery = 10 * time.Millisecond
	// logTail is how many bytes of a log are quoted in an error.
	logTail = 4 << 10
)

// Server is one private server: a folder, an address, and at most one running
// process. Its methods may be called from any goroutine.
type Server struct {
	// Addr is the host:port to connect to; it stays the same over restarts.
	Addr string
	// Dir holds the server's data and its log.
	Dir string

	spec   spec
	ownDir bool // Dir is our own temporary folder; Stop removes it

	mu     sync.Mutex // guards the fields below
	proc   *process   // the current or last run; nil before the first
	paused bool
}

// spec is what differs between the kinds of server.
type spec struct {
	name string
	argv []string // the program's path and its arguments
	as   credential
	// ready returns nil when the server has answered on a real connection.
	ready func(ctx context.Context) error
}

// Log returns the end of the server's log.
func (s *Server) Log() string { return tail(s.logPath(), logTail) }

func (s *Server) logPath() string { return filepath.Join(s.Dir, s.spec.name+".log") }

// dataDir is the only folder that the server itself writes to.
func (s *Server) dataDir() string { return filepath.Join(s.Dir, "data") }

// start runs the program and returns when it answers. On an error nothing of
// it is left running.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.alive() {
		return fmt.Errorf("start %s: it is running already", s.spec.name)
	}
	// Were the port taken, the probe could mistake its owner for our server in
	// the moment before ours gives up.
	if err := portFree(ctx, s.Addr); err != nil {
		return err
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", s.spec.name, err)
	}
	defer log.Close()
	// Not tied to ctx: the server outlives its start.
	cmd := &exec.Cmd{Path: s.spec.argv[0], Args: s.spec.argv, Stdout: log, Stderr: log}
	proc, err := startProcess(cmd, s.spec.as)
	if err != nil {
		return err
	}
	s.proc, s.paused = proc, false
	if err := s.awaitReady(ctx, proc); err != nil {
		return errors.Join(err, kill(proc))
	}
	return nil
}

// awaitReady probes until the server answers, ends or ctx does.
func (s *Server) awaitReady(ctx context.Context, proc *process) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := s.spec.ready(ctx)
		if err == nil && proc.alive() {
			return nil
		}
		select {
		case <-proc.done:
			return fmt.Errorf("%s ended while starting (%w); its log ends with:\n%s",
				s.spec.name, proc.ended(), s.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer on %s: %w (last probe: %w); its log ends with:\n%s",
				s.spec.name, s.Addr, ctx.Err(), err, s.Log())
		case <-tick.C:
		}
	}
}

// Stop ends the server in an orderly way, and by force when ctx ends first or
// the server takes too long. Afterwards no process is left, and a folder that
// was not named in Options is removed. Stopping a stopped server is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.halt(ctx)
	if err == nil && s.ownDir {
		err = os.RemoveAll(s.Dir)
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", s.spec.name, err)
	}
	return nil
}

// halt ends the process, orderly if ctx allows. The caller holds mu.
func (s *Server) halt(ctx context.Context) error {
	if s.proc == nil || !s.proc.alive() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	// A paused process would not see SIGTERM before it is resumed.
	if s.paused {
		if err := s.proc.signal(sigResume); err != nil {
			return err
		}
		s.paused = false
	}
	if err := s.proc.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.proc.done:
		return nil
	case <-ctx.Done():
		return kill(s.proc)
	}
}

// Kill ends the server with SIGKILL, as a crash would, and returns when the
// process is gone. Its data stay for Restart. Killing a stopped server is
// harmless.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	s.paused = false
	return kill(s.proc)
}

func kill(p *process) error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(killTimeout):
		return fmt.Errorf("process %d is still there %s after SIGKILL", p.os.Pid, killTimeout)
	}
}

// Restart starts the server again on the same data and port, and returns when
// it answers. A server that is still running is stopped in an orderly way first.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	err := s.halt(ctx)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("restart %s: %w", s.spec.name, err)
	}
	if _, err := os.Stat(s.Dir); err != nil {
		return fmt.Errorf("restart %s: its temporary folder went with Stop; name one in Options.Dir: %w", s.spec.name, err)
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("restart %s: %w", s.spec.name, err)
	}
	return nil
}

// Pause freezes the server (SIGSTOP): connections stay open, nothing answers.
func (s *Server) Pause() error { return s.freeze(sigPause, true) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.freeze(sigResume, false) }

func (s *Server) freeze(sig syscall.Signal, paused bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.alive() {
		return fmt.Errorf("signal %s to %s: it is not running", sig, s.spec.name)
	}
	if err := s.proc.signal(sig); err != nil {
		return err
	}
	s.paused = paused
	return nil
}

// Pid returns the process id of the current run, or 0 when there is none.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.alive() {
		return 0
	}
	return s.proc.os.Pid
}

// Port returns the port of Addr.
func (s *Server) Port() int {
	addr, err := net.ResolveTCPAddr("tcp", s.Addr)
	if err != nil {
		return 0
	}
	return addr.Port
}
