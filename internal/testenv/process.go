package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// process is one run of a server's program.
type process struct {
	os   *os.Process
	done chan struct{} // closed once the process has ended and is reaped
	err  error         // how it ended; read only after done is closed
}

// startProcess runs cmd in its own process group, so that a ^C in the terminal
// reaches us first, and so that it dies with us.
//
// The kernel ties "dies with us" to the thread that forked, not to the process.
// Therefore the goroutine that forks keeps its thread until the child has ended.
func startProcess(cmd *exec.Cmd, as credential) (*process, error) {
	cmd.SysProcAttr = sysProcAttr(as)
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.os = cmd.Process
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// ended says how the process ended. Call it only after done is closed.
func (p *process) ended() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// alive reports whether the process has not been reaped yet.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig. A process that has ended already is not an error.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.os.Signal(sig); err != nil && p.alive() {
		return fmt.Errorf("signal %s to process %d: %w", sig, p.os.Pid, err)
	}
	return nil
}
