//go:build integration

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// A stop waits for what was read to be written, for longer than a lease: it keeps
// the lease until then, and a standby is elected right after.
func TestRoles_TheLeaseIsHeldThroughTheDrain(t *testing.T) {
	d := newDivided(t, testenv.StartMariaDB)
	election := []string{"ROWTIDE_ELECTION_ENABLED=true", "ROWTIDE_ELECTION_LEASE=1s"}
	p := d.ready(d.start("all", election...))
	d.comesThrough(20 * time.Second)
	standby := d.start("all", append(election, "ROWTIDE_SOURCE_SERVER_ID=5001")...)
	eventually(t, "standing by", time.Minute, func() (bool, string) { return d.standsBy(standby), d.logs() })

	ctx, page := t.Context(), d.prefix+":film_page:1:1"
	lock, err := d.db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	exec := func(on interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
	}, query string,
	) {
		t.Helper()
		if _, err := on.ExecContext(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	exec(lock, "LOCK TABLES film_category WRITE") // the pages of films wait for it
	exec(d.db, "UPDATE actor SET first_name = 'LAST WORD' WHERE actor_id = 1")
	eventually(t, "the page being rebuilt", 20*time.Second, func() (bool, string) {
		var n int
		err := d.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table metadata lock%'").Scan(&n)
		return err == nil && n > 0, fmt.Sprint(n, " connections wait, ", err, d.logs())
	})
	unlocked := make(chan struct{})
	go func() {
		defer close(unlocked)
		<-time.After(4 * time.Second) // four leases
		if _, err := lock.ExecContext(ctx, "UNLOCK TABLES"); err != nil {
			t.Error(err)
		}
	}()
	code := p.Terminate(t)
	<-unlocked
	if log := p.Log.String(); code != exitClean || strings.Contains(log, "level=WARN") {
		t.Errorf("exits %d after SIGTERM:\n%s", code, log)
	}
	if s, err := d.rdb.Get(ctx, page).Result(); err != nil || !strings.Contains(s, "LAST WORD") {
		t.Errorf("the page is %q, %v; want what was read before the stop", s, err)
	}
	d.ready(standby)
}

// The renewal of a minute's lease would notice the other election in 15 s; the
// write of the next change notices at once, and writes nothing.
func TestRoles_DeposedDaemonWritesNothing(t *testing.T) {
	d := newDivided(t, testenv.StartMariaDB)
	p := d.ready(d.start("all", "ROWTIDE_ELECTION_ENABLED=true", "ROWTIDE_ELECTION_LEASE=1m"))
	d.comesThrough(20 * time.Second)
	ctx, term, lease, row := t.Context(), d.prefix+":term:{main}", d.prefix+":lease:{main}", d.prefix+":actor:1:1"
	if err := d.rdb.Incr(ctx, term).Err(); err != nil {
		t.Fatal(err)
	}
	if err := d.rdb.Del(ctx, row).Err(); err != nil { // an eviction
		t.Fatal(err)
	}
	if _, err := d.db.ExecContext(ctx, "UPDATE actor SET first_name = 'old' WHERE actor_id = 1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "standing by", 10*time.Second, func() (bool, string) { return d.standsBy(p), d.logs() })
	if got, err := d.rdb.Get(ctx, row).Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("the deposed one wrote %q, %v", got, err)
	}
	if log := p.Log.String(); !strings.Contains(log, "standing by again") || !strings.Contains(log, "writes to redis from here on") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	if err := d.rdb.Del(ctx, lease).Err(); err != nil {
		t.Fatal(err)
	}
	d.ready(p)
	eventually(t, "the change in Redis", 20*time.Second, func() (bool, string) {
		s, err := d.rdb.Get(ctx, row).Result()
		return err == nil && strings.Contains(s, "old"), fmt.Sprintf("%q %v\n%s", s, err, d.logs())
	})
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exits %d after SIGTERM:\n%s", code, p.Log)
	}
}
