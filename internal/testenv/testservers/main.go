// Command testservers starts MariaDB, MySQL, Redis and Apache Kafka once, runs
// a command that finds them through its environment, and stops them again.
//
//	go run ./internal/testenv/testservers -- go test -tags integration ./...
//
// It exits with the command's exit code. Where `make setup` could not download
// MySQL or Kafka it goes on without the one and with an in-process broker for
// the other, and says so in capitals at the very end; with
// ROWTIDE_TEST_STRICT=1 that is a failure at the very beginning.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

const exitFault = 125 // not ours to confuse with the command's own codes

func main() {
	dir := flag.String("dir", "", "keep the servers' data and logs in this folder (default: a temporary one)")
	only := flag.String("servers", strings.Join(allServers, ","), "the servers to start, separated by commas")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: testservers [flags] -- command [arguments]")
		os.Exit(exitFault)
	}
	code, err := run(*dir, strings.Split(*only, ","), flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "testservers:", err)
	}
	os.Exit(code)
}

func run(dir string, names, command []string) (code int, err error) {
	// From here on a signal ends the start-up, or is passed to the command;
	// either way the servers are stopped below.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	dir, remove, err := workDir(dir)
	if err != nil {
		return exitFault, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	f, err := startInterruptibly(ctx, cancel, signals, dir, names)
	if err != nil {
		return exitFault, err
	}
	fmt.Fprintln(os.Stderr, "testservers:", f.summary())

	code, err = runCommand(command, f.environ(), signals)
	err = errors.Join(err, f.stop())
	if err != nil && code == 0 {
		code = exitFault
	}
	for _, notice := range f.notices() {
		fmt.Fprintln(os.Stdout, notice)
	}
	return code, err
}

// startInterruptibly starts the fleet; a signal meanwhile cancels that.
func startInterruptibly(ctx context.Context, cancel func(), signals <-chan os.Signal, dir string, names []string) (*fleet, error) {
	type result struct {
		fleet *fleet
		err   error
	}
	done := make(chan result, 1)
	go func() {
		f, err := startFleet(ctx, dir, names)
		done <- result{f, err}
	}()
	select {
	case r := <-done:
		return r.fleet, r.err
	case sig := <-signals:
		cancel()
		r := <-done
		if r.err == nil {
			r.err = r.fleet.stop()
		}
		return nil, errors.Join(fmt.Errorf("interrupted by %s", sig), r.err)
	}
}

// runCommand runs the command and passes signals on to it. An interrupt from
// the terminal reaches it twice, which go test and shells bear.
func runCommand(command, env []string, signals <-chan os.Signal) (int, error) {
	// No context ends it: the command decides itself how it takes a signal.
	cmd := exec.CommandContext(context.Background(), command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return exitFault, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return exitFault, err
			}
		case err := <-ended:
			return exitCode(err)
		}
	}
}

// exitCode turns how a command ended into what a shell would report.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return exitFault, err
	}
	const bySignal = 128
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return bySignal + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
