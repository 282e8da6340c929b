package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func goBuild(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "./cmd/rowtide")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build rowtide: %w", err)
	}
	return nil
}

var modelName = regexp.MustCompile(`model name\s*: (.*)`)

func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if m := modelName.FindSubmatch(b); err == nil && m != nil {
		return string(m[1])
	}
	return "unknown CPU"
}

// daemon is a `rowtide` process under measurement.
type daemon struct {
	cmd  *exec.Cmd
	http string
	log  *os.File
}

// Where a daemon starts.
const (
	earliest = "earliest"
	latest   = "latest"
)

// itemModule is of the table that most parts fill.
const itemModule = `{name: item, key: "{id}", from: {table: bench.item, columns: [id, name, price, state, updated_at]}}`

// startDaemon runs the daemon over the benchmark's table and returns when it has
// begun to serve its status.
func (b *bench) startDaemon(ctx context.Context, name, startAt string) (*daemon, error) {
	return b.startDaemonOf(ctx, itemModule, name, startAt)
}

// startDaemonOf is startDaemon with another module.
func (b *bench) startDaemonOf(ctx context.Context, module, name, startAt string) (*daemon, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	cfg := fmt.Sprintf(`
name: %[1]s
source: {addr: "%[2]s", user: root, server_id: 4711, start_at: %[7]s, backfill: {auto: false}}
redis: {addrs: ["%[3]s"], prefix: %[1]s}
kafka: {brokers: ["%[4]s"], topic: %[1]s.invalidations}
http: {listen: "%[5]s", pprof: %[6]t}
modules: [%[8]s]
`, name, b.sql.Addr, b.redis.Addr, strings.Join(b.brokers, `","`), addr, b.profile != "", startAt, module)
	d, err := b.spawn(name, cfg, addr, "run")
	if err != nil {
		return nil, err
	}
	if err := d.await(ctx, awaitLimit, func(daemonStatus) bool { return true }); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	if b.profile != "" {
		go d.saveProfile(ctx, filepath.Join(b.profile, name+".pprof"))
	}
	return d, nil
}

// freeAddr is an address that nobody listens at.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close() // only its number was wanted
	return ln.Addr().String(), nil
}

// spawn starts rowtide with a command and a config of its own; http is what the config
// says.
func (b *bench) spawn(name, cfg, http string, command ...string) (*daemon, error) {
	path := filepath.Join(filepath.Dir(b.bin), name+".yaml")
	if err := os.WriteFile(path, []byte(cfg), 0o600); err != nil {
		return nil, err
	}
	d := &daemon{http: http, cmd: exec.Command(b.bin, append(command, "-c", path)...)} //nolint:noctx // stopped by signal, to drain
	var err error
	if d.log, err = os.Create(path + ".log"); err != nil {
		return nil, err
	}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, d.log.Close())
	}
	return d, nil
}

// saveProfile keeps three seconds of the daemon's CPU profile.
func (d *daemon) saveProfile(ctx context.Context, path string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.http+"/debug/pprof/profile?seconds=3", nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		_ = os.WriteFile(path, b, 0o600) // a profile that is not there will be noticed
	}
}

type daemonStatus struct {
	Position   string `json:"position"`
	Changes    int64  `json:"changes"`
	Written    int64  `json:"entries_written"`
	Superseded int64  `json:"entries_superseded"`
}

// poll is the resolution of a throughput figure's ends: some thousandths of a
// run.
const poll = 5 * time.Millisecond

// awaitLimit is many times what a daemon needs to start, or to read a whole log.
const awaitLimit = time.Minute

func (d *daemon) await(ctx context.Context, limit time.Duration, ok func(daemonStatus) bool) error {
	return d.until(ctx, limit, func() bool {
		s, err := d.status(ctx)
		return err == nil && ok(s)
	})
}

func (d *daemon) until(ctx context.Context, limit time.Duration, ok func() bool) error {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if ok() {
			return nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	log, _ := os.ReadFile(d.log.Name())
	return fmt.Errorf("rowtide did not get there; its log ends:\n%s", log)
}

func (d *daemon) status(ctx context.Context) (s daemonStatus, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.http+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// cpuSeconds is the user and system time that a process has used.
func cpuSeconds(pid int) float64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const ticks = 100 // per second, on every Linux that Go runs on
	user, _ := strconv.ParseFloat(f[11], 64)
	sys, _ := strconv.ParseFloat(f[12], 64)
	return (user + sys) / ticks
}

// resident is the memory of a process, in bytes.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("process %d has no memory left", pid)
	}
	kb, err := strconv.ParseFloat(fields[0], 64)
	return kb * 1024, err
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

func (d *daemon) stop() error {
	defer d.log.Close()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.cmd.Wait()
}
