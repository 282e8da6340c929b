//go:build integration

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// binary is the rowtide that the tests run, built once, and without the race detector:
// what is timed is what users run.
var binary string

func TestMain(m *testing.M) {
	quietLibraries() // later, the clients of an earlier test may be reading the setting
	dir, err := os.MkdirTemp("", "rowtide-test-*")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "rowtide")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic("build rowtide: " + err.Error())
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// result is a finished command.
type result struct {
	code           int
	stdout, stderr string
}

// rowtideCommand runs the binary to its end.
func rowtideCommand(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("run rowtide %v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// startProcess starts the binary; it is killed when the test ends.
func startProcess(t *testing.T, env []string, args ...string) *testenv.Program {
	t.Helper()
	return testenv.StartProgram(t, exec.Command(binary, args...), env...)
}

// eventually polls until ok, for things that only other processes know.
func eventually(t *testing.T, what string, d time.Duration, ok func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s; last seen: %s", what, d, state)
		}
	}
}

// writeConfig puts a config into a temporary file.
func writeConfig(t *testing.T, format string, args ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rowtide.yaml")
	text := strings.TrimLeft(fmt.Sprintf(format, args...), "\n")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
