//go:build integration

package testenv_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// deadline is generous: the whole suite may be running on the same two cores.
const deadline = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func stopAtEnd(t *testing.T, s *testenv.Server) {
	t.Helper()
	t.Cleanup(func() {
		pid := s.Pid()
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		if pid != 0 && !gone(pid) {
			t.Errorf("process %d is there after Stop", pid)
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("second stop: %v", err)
		}
	})
}

// gone reports whether no process of that id exists, not even a zombie.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// eventually asks until the answer is yes or the deadline is over.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func TestSQL_ServesBinlogAndSurvivesKill(t *testing.T) {
	for flavor, start := range map[string]func(context.Context, testenv.Options) (*testenv.SQLServer, error){
		testenv.FlavorMariaDB: testenv.StartMariaDB,
		testenv.FlavorMySQL:   testenv.StartMySQL,
	} {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s durable=%t", flavor, durable), func(t *testing.T) {
				if flavor == testenv.FlavorMySQL && testenv.Degraded("mysql") {
					testenv.MySQL(t) // skips, or fails where that is forbidden
				}
				s, err := start(testContext(t), testenv.Options{Durable: durable})
				if err != nil {
					t.Fatal(err)
				}
				stopAtEnd(t, s.Server)
				checkSQL(t, s, durable)
			})
		}
	}
}

func checkSQL(t *testing.T, s *testenv.SQLServer, durable bool) {
	t.Helper()
	ctx := testContext(t)
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	wantSync := "0"
	if durable {
		wantSync = "1"
	}
	for variable, want := range map[string]string{
		"binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL",
		"log_bin": "1", "server_id": strconv.Itoa(s.Port()), "sync_binlog": wantSync,
		"bind_address": "127.0.0.1", "character_set_server": "utf8mb4",
	} {
		var got string
		if err := db.QueryRowContext(ctx, "SELECT @@GLOBAL."+variable).Scan(&got); err != nil || got != want {
			t.Errorf("%s=%q (err %v), want %q", variable, got, err, want)
		}
	}
	checkFreshBinlog(t, db)
	for _, q := range []string{"CREATE DATABASE shop", "CREATE TABLE shop.item (id INT PRIMARY KEY)", "INSERT INTO shop.item VALUES (42)"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := db.PingContext(ctx); err == nil {
		t.Error("the server answers after Kill")
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	var id int
	if err := db.QueryRowContext(ctx, "SELECT id FROM shop.item").Scan(&id); err != nil || id != 42 {
		t.Fatalf("id=%d err=%v after Kill and Restart, want 42", id, err)
	}
}

// checkFreshBinlog wants the one first file, and no statement in it: accounts
// made by the set-up must not reach a reader of the binlog.
func checkFreshBinlog(t *testing.T, db *sql.DB) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SHOW BINLOG EVENTS IN 'binlog.000001'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var file, pos, kind, server, end, info string
		if err := rows.Scan(&file, &pos, &kind, &server, &end, &info); err != nil {
			t.Fatal(err)
		}
		switch strings.ToLower(kind) {
		case "format_desc", "previous_gtids", "gtid_list", "binlog_checkpoint":
		default:
			t.Errorf("a fresh binlog holds %s %s", kind, info)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestMySQL_TwoServersHaveDifferentUUIDs(t *testing.T) {
	if testenv.Degraded("mysql") {
		testenv.MySQL(t)
	}
	seen := map[string]bool{}
	for range 2 {
		s, err := testenv.StartMySQL(testContext(t), testenv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		stopAtEnd(t, s.Server)
		db, err := sql.Open("mysql", s.DSN(""))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var uuid string
		if err := db.QueryRowContext(t.Context(), "SELECT @@server_uuid").Scan(&uuid); err != nil {
			t.Fatal(err)
		}
		if seen[uuid] {
			t.Fatalf("both servers are %s", uuid)
		}
		seen[uuid] = true
	}
}

func TestRedis_SurvivesKillWithAppendOnly(t *testing.T) {
	ctx := testContext(t)
	s, err := testenv.StartRedis(ctx, testenv.Options{AppendOnly: true, Password: "secret", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, s.Server)
	c := redis.NewClient(&redis.Options{Addr: s.Addr, Password: s.Password})
	defer c.Close()
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, "k").Result(); err != nil || got != "v" {
		t.Fatalf("k=%q err=%v after Kill and Restart, want v", got, err)
	}
	stranger := redis.NewClient(&redis.Options{Addr: s.Addr})
	defer stranger.Close()
	if err := stranger.Get(ctx, "k").Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Fatalf("without the password: %v, want NOAUTH", err)
	}
}

func TestRedis_ReplicaFollowsAndACLHolds(t *testing.T) {
	ctx := testContext(t)
	primary, err := testenv.StartRedis(ctx, testenv.Options{
		ACL:   []string{"node on >secret ~rt:* +get"},
		Flags: []string{"--repl-diskless-sync-delay", "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, primary.Server)
	replica, err := testenv.StartRedis(ctx, testenv.Options{ReplicaOf: primary.Addr})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, replica.Server)
	writer := redis.NewClient(&redis.Options{Addr: primary.Addr})
	defer writer.Close()
	if err := writer.Set(ctx, "rt:k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	reader := redis.NewClient(&redis.Options{Addr: replica.Addr})
	defer reader.Close()
	eventually(t, "the replica has the key", func() bool {
		got, err := reader.Get(ctx, "rt:k").Result()
		return err == nil && got == "v"
	})
	node := redis.NewClient(&redis.Options{Addr: primary.Addr, Username: "node", Password: "secret"})
	defer node.Close()
	if err := node.Set(ctx, "rt:k", "x", 0).Err(); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Fatalf("SET as node: %v, want NOPERM", err)
	}
}

func TestServer_PausedAnswersNothingUntilResumed(t *testing.T) {
	ctx := testContext(t)
	s, err := testenv.StartRedis(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, s.Server)
	c := redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: 100 * time.Millisecond, MaxRetries: -1})
	defer c.Close()
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if err := c.Ping(ctx).Err(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("ping of a paused server: %v, want a timeout", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	// stopAtEnd then shows that a paused server can be stopped.
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
}

func TestServer_BadFlagFailsWithItsLog(t *testing.T) {
	dir := t.TempDir()
	_, err := testenv.StartRedis(testContext(t), testenv.Options{Dir: dir, Flags: []string{"--no-such-option", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Fatalf("err=%v, want the server's own words", err)
	}
}

func TestServer_TakenPortIsAnError(t *testing.T) {
	ctx := testContext(t)
	first, err := testenv.StartRedis(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, first.Server)
	second, err := testenv.StartRedis(ctx, testenv.Options{Port: first.Port()})
	if err == nil {
		stopAtEnd(t, second.Server)
		t.Fatal("a second server started on the same port")
	}
	if !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("err=%v, want address already in use", err)
	}
}

// TestServer_DiesWithItsStarter kills a process that has started servers and
// wants them gone too.
func TestServer_DiesWithItsStarter(t *testing.T) {
	// The starter's folder belongs to this process, which lives to remove it.
	if dir := os.Getenv("ROWTIDE_TESTENV_CHILD"); dir != "" {
		startAndWait(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServer_DiesWithItsStarter$")
	cmd.Env = append(os.Environ(), "ROWTIDE_TESTENV_CHILD="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(out); len(pids) < 2 && lines.Scan(); {
		if word, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the starter ended well although it was killed")
	}
	if len(pids) != 2 {
		t.Fatalf("the starter told of %d servers, want 2", len(pids))
	}
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("server %d is gone", pid), func() bool { return gone(pid) })
	}
}

func startAndWait(t *testing.T, dir string) {
	t.Helper()
	db, err := testenv.StartMariaDB(t.Context(), testenv.Options{Dir: filepath.Join(dir, "mariadb")})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := testenv.StartRedis(t.Context(), testenv.Options{Dir: filepath.Join(dir, "redis")})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "pid %d\npid %d\n", db.Pid(), cache.Pid())
	select {} // until killed
}
