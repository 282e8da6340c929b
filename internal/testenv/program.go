package testenv

import (
	"bytes"
	"context"
	"os/exec"
	"sync"
	"syscall"
)

// Program is a program under test that runs beside it.
type Program struct {
	Cmd *exec.Cmd
	Log *Log // what it writes to its standard error
}

// StartProgram starts cmd, with env on top of this process's own environment. It is
// killed when the test ends.
func StartProgram(t TB, cmd *exec.Cmd, env ...string) *Program {
	t.Helper()
	p := &Program{Cmd: cmd, Log: &Log{}}
	cmd.Env, cmd.Stderr = append(cmd.Environ(), env...), p.Log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Kill is kill -9. It returns when the program has ended.
func (p *Program) Kill() {
	_ = p.Cmd.Process.Kill()
	_ = p.Cmd.Wait()
}

// Terminate is SIGTERM. It returns the exit code when the program has ended.
func (p *Program) Terminate(t TB) int {
	t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("signal %s: %v", p.Cmd.Path, err)
	}
	_ = p.Cmd.Wait()
	return p.Cmd.ProcessState.ExitCode()
}

// Log holds a log that is read while it is written.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// FreeAddr is an address on loopback at which nothing listened a moment ago.
func FreeAddr(t TB) string {
	t.Helper()
	port, err := freePort(context.Background())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return loopback(port)
}
