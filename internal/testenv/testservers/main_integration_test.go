//go:build integration

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
)

func TestRun_PassesServersInAndTheExitCodeOut(t *testing.T) {
	out := filepath.Join(t.TempDir(), "addr")
	script := fmt.Sprintf(`printf %%s "$%s" >'%s'; exit 7`, testenv.EnvRedis, out)
	code, err := run("", []string{"redis"}, []string{"sh", "-c", script})
	if code != 7 || err != nil {
		t.Fatalf("code=%d err=%v, want 7", code, err)
	}
	addr, err := os.ReadFile(out)
	if err != nil || len(addr) == 0 {
		t.Fatalf("addr=%q err=%v", addr, err)
	}
	var d net.Dialer
	if conn, err := d.DialContext(t.Context(), "tcp", string(addr)); err == nil {
		conn.Close()
		t.Error("the server answers after the run")
	}
}

func TestRun_CommandEndedBySignalReportsLikeAShell(t *testing.T) {
	code, err := run("", []string{"redis"}, []string{"sh", "-c", "kill -9 $$"})
	if want := 128 + int(syscall.SIGKILL); code != want || err != nil {
		t.Fatalf("code=%d err=%v, want %d", code, err, want)
	}
}

// closedNetwork makes a cache folder as setup leaves it where neither Maven
// Central nor the unstable suite can be reached.
func closedNetwork(t *testing.T) {
	t.Helper()
	cache := t.TempDir()
	for _, part := range []string{"mysql", "kafka"} {
		if err := os.MkdirAll(filepath.Join(cache, part), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cache, part, "MISSING"), []byte("no network\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("ROWTIDE_CACHE", cache)
	t.Setenv(testenv.EnvStrict, "")
}

func TestFleet_ClosedNetworkDegradesInCapitals(t *testing.T) {
	closedNetwork(t)
	f, err := startFleet(t.Context(), t.TempDir(), []string{"kafka"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
	// Said to the fleet directly: this machine may have a MySQL of its own.
	if err := f.degrade("mysql"); err != nil {
		t.Fatal(err)
	}
	env := strings.Join(f.environ(), " ")
	if !strings.Contains(env, testenv.EnvKafka+"=127.0.0.1:") || !strings.Contains(env, testenv.EnvDegraded+"=kafka,mysql") {
		t.Errorf("environment %q, want a Kafka address and both parts degraded", env)
	}
	notices := f.notices()
	if len(notices) != 2 {
		t.Fatalf("notices=%q, want two", notices)
	}
	for _, n := range notices {
		if n != strings.ToUpper(n) || !strings.HasPrefix(n, "DEGRADED: ") {
			t.Errorf("notice %q is not in capitals", n)
		}
	}
}

func TestRun_StrictForbidsDegraded(t *testing.T) {
	closedNetwork(t)
	t.Setenv(testenv.EnvStrict, "1")
	marker := filepath.Join(t.TempDir(), "ran")
	code, err := run("", []string{"kafka"}, []string{"touch", marker})
	if code == 0 || err == nil || !strings.Contains(err.Error(), "KAFKA") {
		t.Errorf("code=%d err=%v, want a failure naming KAFKA", code, err)
	}
	if _, err := os.Stat(marker); !errors.Is(err, os.ErrNotExist) {
		t.Error("the command ran all the same")
	}
}

func TestMain_SignalReachesTheCommandAndNothingStays(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "testservers")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bin, "-servers", "redis", "-dir", dir, "--",
		"sh", "-c", `trap 'exit 3' TERM; echo $`+testenv.EnvRedis+`; while :; do sleep 0.05; done`)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("ended with %v, want the command's own exit code 3", err)
	}
	var d net.Dialer
	if conn, err := d.DialContext(t.Context(), "tcp", strings.TrimSpace(addr)); err == nil {
		conn.Close()
		t.Error("the server answers after the signal")
	}
}
