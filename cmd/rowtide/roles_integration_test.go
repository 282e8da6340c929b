//go:build integration

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// divided is a daemon in several processes over Sakila.
type divided struct {
	t      *testing.T
	srv    *testenv.SQLServer
	db     *sql.DB
	rdb    *redis.Client
	prefix string
	topic  string
	env    []string
	all    []*part
}

// part is one of its processes.
type part struct {
	*testenv.Program
	addr string
}

const (
	sakilaConfig    = sakilaDir + "rowtide.yaml"
	rolesPartitions = 6
)

func newDivided(t *testing.T, start func(context.Context, testenv.Options) (*testenv.SQLServer, error)) *divided {
	t.Helper()
	srv, err := start(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop(context.Background()) })
	db, err := sql.Open("mysql", srv.DSN("sakila")+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	loadSakila(t, srv)
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	t.Cleanup(func() { rdb.Close() })
	d := &divided{t: t, srv: srv, db: db, rdb: rdb, prefix: testenv.UniqueName(t, "roles"), topic: testenv.UniqueName(t, "inv")}
	d.env = []string{
		"ROWTIDE_SOURCE_ADDR=" + srv.Addr, "ROWTIDE_REDIS_ADDRS=" + testenv.Redis(t), "ROWTIDE_REDIS_PREFIX=" + d.prefix,
		"ROWTIDE_KAFKA_BROKERS=" + strings.Join(testenv.Kafka(t), ","), "ROWTIDE_KAFKA_TOPIC=" + d.topic,
		fmt.Sprint("ROWTIDE_KAFKA_PARTITIONS=", rolesPartitions),
	}
	return d
}

// start starts a process of a role.
func (d *divided) start(role string, env ...string) *part {
	d.t.Helper()
	p := &part{addr: testenv.FreeAddr(d.t)}
	all := append(append([]string{"ROWTIDE_HTTP_LISTEN=" + p.addr}, d.env...), env...)
	p.Program = startProcess(d.t, all, "run", "-c", sakilaConfig, "--role", role)
	d.all = append(d.all, p)
	return p
}

// ready waits until the process says that it works.
func (d *divided) ready(p *part) *part {
	d.t.Helper()
	eventually(d.t, "ready", time.Minute, func() (bool, string) {
		code, body := get(d.t, "http://"+p.addr+"/readyz")
		return code == http.StatusOK, fmt.Sprint(code, " ", body, p.Log)
	})
	return p
}

// caughtUp waits until the appliers own all partitions and have applied all.
func (d *divided) caughtUp(appliers ...*part) {
	d.t.Helper()
	eventually(d.t, "appliers caught up", time.Minute, func() (bool, string) {
		claimed, behind := 0, 0.0
		var logs string
		for _, p := range appliers {
			_, body := get(d.t, "http://"+p.addr+"/metrics")
			for line := range strings.Lines(body) {
				var n float64
				switch name, value, _ := strings.Cut(line, " "); {
				case strings.HasPrefix(name, "rowtide_changes_claimed{"):
					claimed++
				case strings.HasPrefix(name, "rowtide_changes_behind_records{"):
					_, _ = fmt.Sscan(value, &n)
					behind += n
				}
			}
			logs += p.Log.String()
		}
		return claimed == rolesPartitions && behind == 0, fmt.Sprint(claimed, " partitions claimed, ", behind, " records behind\n", logs)
	})
}

// logs are those of all processes so far.
func (d *divided) logs() string {
	var b strings.Builder
	for i, p := range d.all {
		fmt.Fprintf(&b, "process %d, %s:\n%s", i+1, p.Cmd.Args[len(p.Cmd.Args)-1], p.Log)
	}
	return b.String()
}

// wrote waits until so many changes are committed.
func (d *divided) wrote(w *sakilaWriters, goal int64) {
	d.t.Helper()
	eventually(d.t, "writers under way", 2*time.Minute, func() (bool, string) {
		n := w.done.Load()
		return n >= goal, fmt.Sprint(n, " of ", goal)
	})
}

// judge checks that Redis holds what the database holds. Verify waits for the
// reader and the appliers.
func (d *divided) judge(appliers ...*part) {
	d.t.Helper()
	d.await()
	d.caughtUp(appliers...)
	res := rowtideCommand(d.t, append([]string{"ROWTIDE_ROLE=applier"}, d.env...), "verify", "-c", sakilaConfig)
	if res.code != exitClean || !strings.Contains(res.stdout, "\n0 differences") {
		d.t.Errorf("exit %d\n%s%s\n%s", res.code, res.stdout, res.stderr, d.logs())
	}
}

// await lets a last change come through, and so all before it on its way.
func (d *divided) await() {
	d.t.Helper()
	if _, err := d.db.ExecContext(d.t.Context(), "INSERT INTO store (manager_staff_id, address_id) SELECT 1 + MAX(store_id), 1 FROM store"); err == nil {
		return
	}
	// Sakila's staff bounds its stores; any change will do.
	if _, err := d.db.ExecContext(d.t.Context(), "UPDATE store SET last_update = NOW() + INTERVAL 1 SECOND"); err != nil {
		d.t.Fatal(err)
	}
}

// A reader and an applier are killed, another applier is paused until its
// partitions have moved and then goes on with what it had in hand: in the end
// Redis equals the database, no version has ever gone back and all was announced.
func TestRoles_KillsAndAZombieEndWithNoDifference(t *testing.T) {
	starts := map[string]func(context.Context, testenv.Options) (*testenv.SQLServer, error){
		testenv.FlavorMariaDB: testenv.StartMariaDB, testenv.FlavorMySQL: testenv.StartMySQL,
	}
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			d := newDivided(t, starts[target.Flavor])
			reader := d.ready(d.start("reader"))
			standby := d.start("reader", "ROWTIDE_SOURCE_SERVER_ID=4102")
			one, two := d.ready(d.start("applier")), d.ready(d.start("applier"))

			w := &sakilaWriters{db: d.db, want: 6000}
			writing := w.start(t.Context(), 4)
			ctx, stopWatch := context.WithCancel(t.Context())
			watching := watchVersions(ctx, t, d.rdb, d.prefix)

			d.wrote(w, 1000)
			one.Kill()
			d.wrote(w, 1500)
			one = d.start("applier")
			d.wrote(w, 2000)
			reader.Kill()
			d.ready(standby)
			reader = d.start("reader")
			d.wrote(w, 3000)
			d.zombie(two, one)
			<-writing
			t.Logf("%d changes committed", w.done.Load())
			d.judge(one, two)
			stopWatch()
			<-watching
			for _, p := range []*part{one, two, standby, reader} {
				if code := p.Terminate(t); code != exitClean {
					t.Errorf("%v exits %d after SIGTERM:\n%s", p.Cmd.Args, code, p.Log)
				}
			}
			checkAnnounced(t, d.rdb, d.prefix, d.topic)
		})
	}
}

// zombie pauses an applier until the other has its partitions, and wakes it.
func (d *divided) zombie(p, other *part) {
	d.t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "partitions moved", time.Minute, func() (bool, string) {
		_, body := get(d.t, "http://"+other.addr+"/metrics")
		n := strings.Count(body, "rowtide_changes_claimed{")
		return n == rolesPartitions, fmt.Sprint(n, " partitions ", other.Log)
	})
	if err := p.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		d.t.Fatal(err)
	}
}

// Two readers that both believe to be the only one send every change twice, each
// from a checkpoint of its own.
func TestRoles_TwoReadersAtOnceAreHarmless(t *testing.T) {
	d := newDivided(t, testenv.StartMariaDB)
	free := "ROWTIDE_ELECTION_ENABLED=false"
	d.ready(d.start("reader", free))
	applier := d.ready(d.start("applier"))
	w := &sakilaWriters{db: d.db, want: 3000}
	writing := w.start(t.Context(), 4)
	ctx, stopWatch := context.WithCancel(t.Context())
	watching := watchVersions(ctx, t, d.rdb, d.prefix)
	d.wrote(w, 500)
	// It begins at the log's beginning, so that old records come after newer ones.
	second := d.ready(d.start("reader", free, "ROWTIDE_NAME=second", "ROWTIDE_SOURCE_SERVER_ID=4102"))
	<-writing
	d.judge(applier)
	eventually(t, "second reader caught up", time.Minute, func() (bool, string) {
		a, errA := d.rdb.Get(t.Context(), d.prefix+":checkpoint:main").Result()
		b, errB := d.rdb.Get(t.Context(), d.prefix+":checkpoint:second").Result()
		pos := func(s string) string {
			_, s, _ = strings.Cut(s, `"file"`)
			s, _, _ = strings.Cut(s, `"saved_at"`)
			return s
		}
		return errA == nil && errB == nil && pos(a) == pos(b), a + b + second.Log.String()
	})
	d.judge(applier)
	stopWatch()
	<-watching
	checkAnnounced(t, d.rdb, d.prefix, d.topic)
}

// After kill -9 the first change that only a standby can have read is in Redis
// within three seconds, three times in a row; after a clean stop sooner.
func TestRoles_StandbyTakesOverWithinThreeSeconds(t *testing.T) {
	for _, role := range []string{"reader", "all"} {
		t.Run(role, func(t *testing.T) {
			d := newDivided(t, testenv.StartMariaDB)
			id := 0
			start := func() *part {
				id++
				return d.start(role, "ROWTIDE_ELECTION_ENABLED=true", fmt.Sprint("ROWTIDE_SOURCE_SERVER_ID=", 5000+id))
			}
			leader := d.ready(start())
			if role == "reader" {
				d.ready(d.start("applier"))
			}
			d.comesThrough(20 * time.Second)
			for i := range 4 {
				standby := start()
				eventually(t, "one of two stands by", time.Minute, func() (bool, string) {
					// A machine that stood still may have turned the roles round.
					if d.standsBy(leader) {
						leader, standby = standby, leader
					}
					code, body := get(t, "http://"+leader.addr+"/readyz")
					return d.standsBy(standby) && code == http.StatusOK, fmt.Sprint(code, body, d.logs())
				})
				limit := 3 * time.Second
				began := time.Now()
				if i < 3 {
					leader.Kill()
				} else {
					limit = 2 * time.Second // most of it is the opening
					if code := leader.Terminate(t); code != exitClean {
						t.Errorf("exits %d after SIGTERM:\n%s", code, leader.Log)
					}
				}
				took := time.Since(began) + d.comesThrough(20*time.Second)
				t.Logf("take-over %d: %s", i+1, took)
				if took > limit {
					t.Errorf("take-over %d took %s, want at most %s\n%s", i+1, took, limit, d.logs())
				}
				leader = standby
			}
		})
	}
}

func (d *divided) standsBy(p *part) bool {
	code, body := get(d.t, "http://"+p.addr+"/readyz")
	return code == http.StatusServiceUnavailable && strings.Contains(body, "standing by")
}

// comesThrough changes a row and returns after how long Redis has it.
func (d *divided) comesThrough(limit time.Duration) time.Duration {
	d.t.Helper()
	mark := fmt.Sprint("mark ", time.Now().UnixNano())
	began := time.Now()
	if _, err := d.db.ExecContext(d.t.Context(), "UPDATE actor SET first_name = ? WHERE actor_id = 1", mark); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "the change in Redis", limit, func() (bool, string) {
		s, err := d.rdb.Get(d.t.Context(), d.prefix+":actor:1:1").Result()
		return err == nil && strings.Contains(s, mark), fmt.Sprintf("%q %v\n%s", s, err, d.logs())
	})
	return time.Since(began)
}

// An elected daemon that was paused until another had its work stands by again
// when it wakes, and does not move the checkpoint.
func TestRoles_PausedLeaderStandsBy(t *testing.T) {
	d := newDivided(t, testenv.StartMariaDB)
	first := d.ready(d.start("reader"))
	d.ready(d.start("applier"))
	d.comesThrough(20 * time.Second)
	if err := first.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := d.ready(d.start("reader", "ROWTIDE_SOURCE_SERVER_ID=4102"))
	d.comesThrough(20 * time.Second)
	if err := first.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "standing by", time.Minute, func() (bool, string) { return d.standsBy(first), d.logs() })
	d.ready(second)
	d.comesThrough(20 * time.Second)
	term, errTerm := d.rdb.Get(t.Context(), d.prefix+":term:{main}").Result()
	if s, err := d.rdb.Get(t.Context(), d.prefix+":checkpoint:main").Result(); errors.Join(err, errTerm) != nil || !strings.Contains(s, `"fence":`+term) {
		t.Errorf("checkpoint %s, %v; want that of term %s", s, err, term)
	}
	for _, p := range []*part{first, second} {
		if code := p.Terminate(t); code != exitClean {
			t.Errorf("exits %d after SIGTERM:\n%s", code, p.Log)
		}
	}
}
