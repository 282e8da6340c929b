//go:build integration

package publisher_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// Each way in which Redis refuses a write: it is told once, with the remedy, the
// write waits, and is there once the fault is mended.
func TestRedis_RefusalIsToldAndNothingIsLost(t *testing.T) {
	const user = "daemon on >pw ~* +@all"
	do := func(words ...string) func(*testing.T, *testenv.RedisServer) {
		return func(t *testing.T, s *testenv.RedisServer) {
			t.Helper()
			if _, err := s.Do(testContext(t), words...); err != nil {
				t.Error(err)
			}
		}
	}
	for _, tt := range []struct {
		name        string
		spoil, mend func(*testing.T, *testenv.RedisServer)
		sign        string // in the error
		remedy      string // in the log
	}{
		{"out of memory", do("CONFIG", "SET", "maxmemory", "1"), do("CONFIG", "SET", "maxmemory", "0"), "OOM", "raise maxmemory"},
		{"replica", do("REPLICAOF", "127.0.0.1", "1"), do("REPLICAOF", "NO", "ONE"), "READONLY", "let redis.addrs name the primary"},
		{"no right to the script", do("ACL", "SETUSER", "daemon", "-evalsha"), do("ACL", "SETUSER", "daemon", "+evalsha"), "NOPERM", "docs/operations.md"},
		{"no right to write", do("ACL", "SETUSER", "daemon", "-set"), do("ACL", "SETUSER", "daemon", "+set"), "", "docs/operations.md"},
		{"no right to the keys", do("ACL", "SETUSER", "daemon", "resetkeys", "~q:*"), do("ACL", "SETUSER", "daemon", "~p:*"), "NOPERM", "docs/operations.md"},
		{"endless script", endlessScript, do("SCRIPT", "KILL"), "BUSY", "SCRIPT KILL"},
		{"hash under the key", do("HSET", "p:event:1:1", "f", "v"), do("RENAME", "p:event:1:1", "aside"), "WRONGTYPE", "move the key"},
	} {
		for _, p := range testenv.RedisPrograms(t) {
			t.Run(tt.name+"/"+p.Name, func(t *testing.T) {
				s := privateRedis(t, testenv.Options{Bin: p.Bin, ACL: []string{user}, Flags: []string{"--busy-reply-threshold", "20"}})
				rdb := dial(t, &redis.Options{Addr: s.Addr, Username: "daemon", Password: "pw"})
				obs, log := newObserver(), &testenv.Log{}
				r := publisher.NewRedis(rdb, "p", loggerTo(log), obs)
				before, after := entry(0, 1), []rowtide.Entry{entry(1, 2), entry(2, 2)}
				if err := r.Overwrite(testContext(t), []rowtide.Entry{before}); err != nil {
					t.Fatal(err)
				}
				tt.spoil(t, s)
				done := make(chan error, 1)
				go func() { done <- r.Overwrite(testContext(t), after) }()
				if err := signal(t, "the refusal", obs.redis); err == nil || !strings.HasPrefix(err.Error(), tt.sign) {
					t.Errorf("told %v, want %s", err, tt.sign)
				}
				tt.mend(t, s)
				if err := signal(t, "the end of the wait", done); err != nil {
					t.Fatal(err)
				}
				if err := signal(t, "the all-clear", obs.redis); err != nil {
					t.Errorf("all-clear is %v", err)
				}
				checkHeld(t, dial(t, &redis.Options{Addr: s.Addr}), "p", append(after, before))
				text := log.String()
				if n := strings.Count(text, "redis refuses writes"); n != 1 || !strings.Contains(text, tt.remedy) || !strings.Contains(text, "redis accepts writes again") {
					t.Errorf("told %d times, want once, with %q and the end:\n%s", n, tt.remedy, text)
				}
			})
		}
	}
}

// endlessScript returns when the server answers BUSY.
func endlessScript(t *testing.T, s *testenv.RedisServer) {
	t.Helper()
	runner := redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: -1, MaxRetries: -1})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runner.Eval(testContext(t), "while true do end", nil)
	}()
	t.Cleanup(func() {
		<-ended
		runner.Close()
	})
	for {
		_, err := s.Do(testContext(t), "PING")
		if err != nil && strings.Contains(err.Error(), "BUSY") {
			return
		}
		if testContext(t).Err() != nil {
			t.Fatal("the script never made the server busy")
		}
	}
}

// A server that reads its file answers LOADING for a while.
func TestRedis_LoadingIsWaitedFor(t *testing.T) {
	// So slow, in microseconds per command, that loading is seen for sure.
	s := privateRedis(t, testenv.Options{AppendOnly: true, Flags: []string{"--key-load-delay", "300", "--aof-use-rdb-preamble", "no"}})
	rdb, obs, log := dial(t, &redis.Options{Addr: s.Addr}), newObserver(), &testenv.Log{}
	r := publisher.NewRedis(rdb, "p", loggerTo(log), obs)
	var all []rowtide.Entry
	for i := range 5000 {
		all = append(all, entry(i, 1))
	}
	if err := r.Overwrite(testContext(t), all); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	up := make(chan error, 1)
	go func() { up <- s.Restart(testContext(t)) }()
	for {
		if _, err := s.Do(testContext(t), "GET", "x"); err != nil && strings.Contains(err.Error(), "LOADING") {
			break
		}
		select {
		case err := <-up:
			t.Fatalf("loading was not seen; restarted with %v", err)
		default:
		}
	}
	all[0] = entry(0, 2)
	if err := r.Overwrite(testContext(t), all[:1]); err != nil {
		t.Fatal(err)
	}
	if err := signal(t, "the refusal", obs.redis); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
		t.Errorf("told %v, want LOADING", err)
	}
	if err := signal(t, "the restart", up); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "redis is reading its file") {
		t.Errorf("the log does not say that nothing is to be done:\n%s", log)
	}
	checkHeld(t, rdb, "p", all)
}

// Each module with a key of another type is told, once.
func TestRedis_WrongTypeIsLoggedOncePerModule(t *testing.T) {
	s := privateRedis(t, testenv.Options{})
	rdb, obs, log := dial(t, &redis.Options{Addr: s.Addr}), newObserver(), &testenv.Log{}
	r := publisher.NewRedis(rdb, "p", loggerTo(log), obs, withPlain())
	all := []rowtide.Entry{entry(1, 1), entry(2, 1), legacy(1, 1)}
	rdb.HSet(testContext(t), "p:event:1:1", "f", "v")
	rdb.HSet(testContext(t), "p:event:1:2", "f", "v")
	rdb.RPush(testContext(t), overwrite.VersionKey("p:legacy:1:1"), "v")
	done := make(chan error, 1)
	go func() { done <- r.Overwrite(testContext(t), all) }()
	if err := signal(t, "the refusal", obs.redis); err == nil || !strings.Contains(err.Error(), "p:event:1:1") {
		t.Errorf("told %v, want the key", err)
	}
	rdb.Rename(testContext(t), "p:event:1:1", "aside1")
	rdb.Rename(testContext(t), "p:event:1:2", "aside2")
	eventually(t, "the second module is told", func() bool { return strings.Contains(log.String(), "module legacy") })
	rdb.Rename(testContext(t), overwrite.VersionKey("p:legacy:1:1"), "aside3")
	if err := signal(t, "the end of the wait", done); err != nil {
		t.Fatal(err)
	}
	checkHeld(t, rdb, "p", all)
	for _, module := range []string{"event", "legacy"} {
		if n := strings.Count(log.String(), "module "+module); n != 1 {
			t.Errorf("module %s is told %d times, want once:\n%s", module, n, log)
		}
	}
	if n := obs.count(overwrite.WrongType); n != 2 {
		t.Errorf("%d counted, want one per module", n)
	}
}

var aclLine = regexp.MustCompile(`(?m)^on >password ~rowtide:\* .*\+evalsha.*$`)

// G1: what docs/operations.md grants is enough to write in both layouts and under
// a fence, to save a checkpoint and to notice a failover; and nothing in it could
// delete.
func TestRedis_WorksWithTheDocumentedRights(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	line := aclLine.FindString(string(page))
	if line == "" {
		t.Fatal("docs/operations.md has no line of rights")
	}
	for _, p := range testenv.RedisPrograms(t) {
		for _, cluster := range []bool{false, true} {
			name, rights := p.Name+"/standalone", line
			if cluster {
				name, rights = p.Name+"/cluster", line+" +cluster|slots +command"
			}
			t.Run(name, func(t *testing.T) {
				o := testenv.Options{Bin: p.Bin, ACL: []string{"daemon " + rights}}
				opts := &redis.UniversalOptions{Username: "daemon", Password: "password", ClientName: "rowtide", IsClusterMode: cluster}
				if cluster {
					opts.Addrs = privateCluster(t, false, o).Addrs()
				} else {
					opts.Addrs = []string{privateRedis(t, o).Addr}
				}
				checkRights(t, universal(t, opts))
			})
		}
	}
}

func checkRights(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	ctx := testContext(t)
	r := publisher.NewRedis(rdb, "rowtide", quiet(), publisher.NopObserver{}, withPlain(), publisher.WithFence("rowtide:term:{main}", 1))
	watch := publisher.NewFailover[int](rdb, quiet())
	gone := entry(2, 2)
	gone.Flags, gone.Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, nil
	all := []rowtide.Entry{entry(1, 1), gone, legacy(1, 1)}
	if err := r.Overwrite(ctx, append(all, entry(2, 1))); err != nil {
		t.Fatal(err)
	}
	checkHeld(t, rdb, "rowtide", all)
	if err := watch.Check(ctx); err != nil {
		t.Errorf("watching for failovers: %v", err)
	}
	if err := rdb.Set(ctx, "rowtide:checkpoint:main", "x", 0).Err(); err != nil {
		t.Errorf("saving a checkpoint: %v", err)
	}
	if err := rdb.Publish(ctx, hints.Channel(rdb, "rowtide"), "x").Err(); err != nil {
		t.Errorf("telling hints: %v", err)
	}
	const key = "rowtide:event:1:1"
	for _, words := range [][]any{
		{"DEL", key},
		{"UNLINK", key},
		{"GETDEL", key},
		{"EXPIRE", key, 1},
		{"PEXPIRE", key, 1},
		{"EXPIREAT", key, 1},
		{"PERSIST", key},
		{"RENAME", key, key + "x"},
		{"FLUSHALL"},
		{"FLUSHDB"},
		{"KEYS", "*"},
		{"CONFIG", "GET", "*"},
		{"SET", "elsewhere", "x"},
		{"GETEX", key, "PX", 1},
	} {
		if err := rdb.Do(ctx, words...).Err(); err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("%v: %v, want it forbidden", words, err)
		}
	}
}
