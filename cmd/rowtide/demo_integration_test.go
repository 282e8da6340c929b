//go:build integration

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// runDemoBinary runs the demo with a temporary folder of its own, sends a signal
// once it sees a line (if any), and returns the exit code and all output.
func runDemoBinary(t *testing.T, tmp string, interruptAt string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out := &testenv.Log{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	if interruptAt != "" {
		eventually(t, "demo under way", time.Minute, func() (bool, string) {
			return strings.Contains(out.String(), interruptAt), out.String()
		})
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("demo did not end:\n%s", out.String())
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// leftovers lists what the demo left behind: files in its temporary folder, and
// processes that mention it.
func leftovers(t *testing.T, tmp string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(tmp)) {
			left = append(left, p+": "+string(bytes.ReplaceAll(b, []byte{0}, []byte(" "))))
		}
	}
	return left
}

// demoTemp is a folder that the database server, running as another user, can
// reach into; t.TempDir is closed to others.
func demoTemp(t *testing.T) string {
	t.Helper()
	tmp, err := os.MkdirTemp("", "rowtide-demotest-*") //nolint:usetesting // t.TempDir is closed to the server's user
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	return tmp
}

func TestDemo_EndsByItselfWithAYes(t *testing.T) {
	tmp := demoTemp(t)
	code, out := runDemoBinary(t, tmp, "", "--for", "9s")
	if code != exitClean {
		t.Fatalf("demo exits %d, want 0:\n%s", code, out)
	}
	for _, claim := range []string{
		"every Redis entry equals MySQL", "every node's local entry equals MySQL", "no unit oversold or lost",
		"every accepted hold is in the ledger", "nothing is in flight",
	} {
		if !strings.Contains(out, "yes  "+claim) {
			t.Errorf("verdict lacks %q:\n%s", claim, out)
		}
	}
	if left := leftovers(t, tmp); len(left) > 0 {
		t.Errorf("demo left behind: %v", left)
	}
}

func TestDemo_InterruptStopsItCleanly(t *testing.T) {
	tmp := demoTemp(t)
	code, out := runDemoBinary(t, tmp, "   2s ")
	if code != exitClean {
		t.Errorf("demo exits %d after Ctrl-C, want 0:\n%s", code, out)
	}
	if left := leftovers(t, tmp); len(left) > 0 {
		t.Errorf("demo left behind: %v", left)
	}
}

// The verdict must be able to say no: one entry is spoilt behind the daemon's
// back, and one unit of stock.
func TestDemo_VerdictSeesASpoiltEntry(t *testing.T) {
	e, err := startDemoServers(t.Context(), demoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.stop() })
	var out testenv.Log
	s := newShop(e, &out, 100, 10)
	t.Cleanup(func() { _ = s.close() })
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := runParts(t, s)
	if err := s.caughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.openNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.nodes {
		if _, err := n.events.Get(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	key := "shop:event:1:7"
	b, err := s.daemon.rdb.Get(t.Context(), key).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.daemon.rdb.Set(t.Context(), "shop:event:1:8", b, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.stock.db.ExecContext(t.Context(), "UPDATE stock_cell SET sold=sold+1"); err != nil {
		t.Fatal(err)
	}
	// What was spoilt never settles.
	s.patience = 5 * time.Second
	v := s.judge(t.Context())
	if err := v.print(&out); err == nil {
		t.Errorf("verdict is yes over a spoilt entry:\n%s", out.String())
	}
	for _, want := range []string{"NO   every Redis entry equals MySQL", "NO   no unit oversold or lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("verdict lacks %q:\n%s", want, out.String())
		}
	}
	stop()
}
