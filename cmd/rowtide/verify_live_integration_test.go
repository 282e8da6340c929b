//go:build integration

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

const hotModules = `[
 {name: row, key: "{id}", from: {table: SCHEMA.hot, where: "n % 7 != 0"}},
 {name: bare, key: "{id}", layout: plain, codec: msgpack, from: {table: SCHEMA.hot}},
 {name: page, key: "{id}", rebuild: {one: "SELECT id, n FROM SCHEMA.hot WHERE id IN (:keys)"}, watch: [{table: SCHEMA.hot, key: "{id}"}]}
]`

// Rows change, come and go all the time: verify accuses nobody.
func TestVerify_AccusesNobodyOnAHotTable(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			r := newVerifyRig(t, target, "hot (id INT PRIMARY KEY, n INT NOT NULL)", hotModules)
			p := r.follow()
			for i := range 200 {
				r.exec("INSERT INTO "+r.schema+".hot VALUES (?, ?)", i, i)
			}
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			for w := range 3 {
				wg.Go(func() { r.heat(ctx, rand.New(rand.NewPCG(1, uint64(w)))) })
			}
			d, v := r.open()
			v.batch = 20
			looks, unsettled := 0, 0
			for range 3 {
				for _, m := range d.modules {
					rep, err := v.module(t.Context(), m)
					if err != nil {
						t.Fatal(err)
					}
					if rep.total() > 0 {
						t.Errorf("%s is accused: %+v", m.Config().Name, rep.Differences)
					}
					looks, unsettled = looks+rep.Keys, unsettled+rep.Unsettled
				}
			}
			t.Logf("%d keys compared, %d changed at every look", looks, unsettled)
			// It is not blind, though: what nobody touches is found beside the heat.
			r.exec("INSERT INTO " + r.schema + ".hot VALUES (5001, 1)")
			eventually(t, "the row arrives", 20*time.Second, func() (bool, string) {
				n, err := r.rdb.Exists(t.Context(), r.name("row", "5001")).Result()
				return n == 1, fmt.Sprint(err)
			})
			r.spoil(d.modules[0].Config(), "5001", 0, `{"id":5001,"n":2}`)
			rep, err := v.module(t.Context(), d.modules[0])
			if err != nil || rep.Stale != 1 || rep.total() != 1 {
				t.Errorf("beside the heat: %+v, %v", rep, err)
			}
			stop()
			wg.Wait()
			if s := p.Log.String(); strings.Contains(s, "level=ERROR") {
				t.Error(s)
			}
		})
	}
}

// heat changes rows until ctx ends, one of them most of the time.
func (r *verifyRig) heat(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		id := rng.IntN(200)
		switch rng.IntN(10) {
		case 0:
			_, _ = r.db.ExecContext(ctx, "DELETE FROM "+r.schema+".hot WHERE id=?", id)
		case 1:
			_, _ = r.db.ExecContext(ctx, "INSERT IGNORE INTO "+r.schema+".hot VALUES (?, ?)", id, rng.IntN(1000))
		case 2:
			_, _ = r.db.ExecContext(ctx, "UPDATE IGNORE "+r.schema+".hot SET id=? WHERE id=?", rng.IntN(200), id)
		case 3, 4, 5:
			_, _ = r.db.ExecContext(ctx, "UPDATE "+r.schema+".hot SET n=n+1 WHERE id=7")
		default:
			_, _ = r.db.ExecContext(ctx, "UPDATE "+r.schema+".hot SET n=n+1 WHERE id=?", id)
		}
	}
}

// racing lets a newer change overtake a repair between its reading and its
// writing.
type racing struct {
	before func()
	to     interface {
		Overwrite(ctx context.Context, entries []rowtide.Entry) error
	}
}

func (r *racing) Overwrite(ctx context.Context, entries []rowtide.Entry) error {
	r.before()
	return r.to.Overwrite(ctx, entries)
}

// A repair that is overtaken by a change neither takes it back nor reports it.
func TestVerify_RepairDoesNotStepBack(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			r := newVerifyRig(t, target, "hot (id INT PRIMARY KEY, n INT NOT NULL)", hotModules)
			r.follow()
			r.exec("INSERT INTO " + r.schema + ".hot VALUES (1, 1), (2, 1), (3, 1)")
			r.verify(exitClean)
			d, v := r.open()
			m := d.modules[0]
			c, err := v.check(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			versionOf := func(id string) (rowtide.Version, string) {
				got, err := c.read(t.Context(), []string{id})
				if err != nil || got[0].err != nil {
					t.Fatal(err, got[0].err)
				}
				return got[0].Version, string(got[0].Payload)
			}
			r.spoil(m.Config(), "1", 0, `{"id":1,"n":77}`)
			v.repair = d.repairer()
			defer func() { _ = v.repair.close() }()
			var newer rowtide.Version
			n := 1
			v.repair.redis = &racing{to: v.repair.redis, before: func() {
				n++
				r.exec("UPDATE "+r.schema+".hot SET n=? WHERE id=1", n)
				eventually(t, "the change overtakes the repair", 20*time.Second, func() (bool, string) {
					v, doc := versionOf("1")
					newer = v
					return doc == fmt.Sprintf(`{"id":1,"n":%d}`, n), doc
				})
			}}
			rep, err := v.module(t.Context(), m)
			if err != nil || rep.total() != 0 || rep.Repaired != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
			if got, doc := versionOf("1"); got != newer || doc != `{"id":1,"n":2}` {
				t.Errorf("entry has version %s and holds %s, want the change's %s", got, doc, newer)
			}

			// An entry from past the end of the log cannot be beaten, and is not.
			future := rowtide.Entry{Key: c.key("2"), Version: 1 << 60, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(`{}`)}
			r.set(r.name("row", "2"), future.AppendEnvelope(nil))
			r.rdb.Del(t.Context(), r.name("row", "3"))
			r.rdb.HSet(t.Context(), r.name("row", "3"), "another", "type")
			v.repair.redis = d.repairer().redis
			rep, err = v.module(t.Context(), m)
			if err != nil || rep.Stale != 1 || rep.Wrong != 1 || rep.Repaired != 0 {
				t.Errorf("unbeatable entries: %+v, %v", rep, err)
			}
			for _, diff := range rep.Differences {
				if want := map[string]string{"2": "past the end of the log", "3": "moved away by hand"}[diff.ID]; !strings.Contains(diff.Unrepaired, want) {
					t.Errorf("%s is not repaired because %q, want %q", diff.ID, diff.Unrepaired, want)
				}
			}
			if got, _ := versionOf("2"); got != 1<<60 {
				t.Errorf("the entry was replaced by version %s", got)
			}
		})
	}
}

// manyRows fills r.schema.many with ids below n.
func (r *verifyRig) manyRows(n int) {
	r.t.Helper()
	const per = 5000
	for from := 0; from < n; from += per {
		var q strings.Builder
		for i := from; i < min(from+per, n); i++ {
			fmt.Fprintf(&q, ",(%d,'name of %d')", i, i)
		}
		r.exec("INSERT INTO " + r.schema + ".many VALUES " + q.String()[1:])
	}
}

// manyEntries writes what a daemon would.
func manyEntries(t *testing.T, rdb redis.UniversalClient, prefix string, n int) {
	t.Helper()
	const per = 5000
	for from := 0; from < n; from += per {
		pipe := rdb.Pipeline()
		for i := from; i < min(from+per, n); i++ {
			e := rowtide.Entry{
				Key: rowtide.Key{Module: "many", Version: 1, ID: fmt.Sprint(i)}, Version: 1 << 52, BuiltAt: time.Now(),
				Payload: fmt.Appendf(nil, `{"id":%d,"name":"name of %d"}`, i, i),
			}
			pipe.Set(t.Context(), e.Key.Redis(prefix), e.AppendEnvelope(nil), 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

const manyModules = `[{name: many, key: "{id}", from: {table: SCHEMA.many}}]`

// What verify keeps does not grow with the number of keys.
func TestVerify_MemoryIsBounded(t *testing.T) {
	const keys, bound = 300_000, 4 << 20
	r := newVerifyRig(t, testenv.MariaDB(t), "many (id INT PRIMARY KEY, name VARCHAR(40))", manyModules)
	r.manyRows(keys)
	manyEntries(t, r.rdb, r.cfg.Redis.Prefix, keys)
	d, v := r.open()
	live := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	base, most, calls := live(), uint64(0), 0
	v.progress = &progress{out: io.Discard, every: time.Hour, now: func() time.Time {
		if calls++; calls%100 == 0 {
			most = max(most, live())
		}
		return time.Now()
	}}
	rep, err := v.module(t.Context(), d.modules[0])
	if err != nil || rep.Keys != keys || rep.Scanned < keys || rep.total() != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if grown := int64(most) - int64(base); calls < 1000 || grown > bound { //nolint:gosec // heaps are small
		t.Errorf("the heap grew by %d bytes over %d batches, want at most %d", grown, calls, bound)
	} else {
		t.Logf("the heap grew by %d bytes over %d batches of %d keys", grown, calls, keys)
	}
}

// In a cluster every primary is scanned, and differences on each are found.
func TestVerify_Cluster(t *testing.T) {
	cluster, err := testenv.StartRedisCluster(t.Context(), 3, false, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Stop(context.Background()) })
	r := newVerifyRig(t, testenv.MariaDB(t), "many (id INT PRIMARY KEY, name VARCHAR(40))", manyModules)
	r.manyRows(1000)
	r.cfg.Redis.Addrs, r.cfg.Redis.Cluster = cluster.Addrs(), true
	d, v := r.open()
	v.behind = &pursuit{} // no daemon here
	manyEntries(t, d.rdb, r.cfg.Redis.Prefix, 1100)
	rep, err := v.module(t.Context(), d.modules[0])
	if err != nil || rep.Keys != 1000 || rep.Scanned != 1100 || rep.Extra != 100 || rep.total() != 100 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A value of an old generation is none, however right it is; one that is newer
// than the raising is one.
func TestVerify_OldGenerationsCountAsAbsent(t *testing.T) {
	r := newVerifyRig(t, testenv.MariaDB(t), "many (id INT PRIMARY KEY, name VARCHAR(40))", manyModules)
	r.manyRows(10)
	manyEntries(t, r.rdb, r.cfg.Redis.Prefix, 11)
	d, v := r.open()
	v.behind = &pursuit{}
	for since, missing := range map[rowtide.Version]int{1 << 52: 0, 1<<52 + 1: 10} {
		v.generations = map[string]rowtide.ModuleControl{"many": {Name: "many", Generation: 1, Since: since}}
		rep, err := v.module(t.Context(), d.modules[0])
		if err != nil || rep.Missing != missing || rep.Extra != map[bool]int{true: 1}[missing == 0] {
			t.Errorf("since %s: %+v, %v", since, rep, err)
		}
	}
}

// A table without a key is walked too, and so are keys of unusual types.
func TestVerify_KeysOfEveryType(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			types := []struct{ name, typ, value string }{
				{"big", "BIGINT UNSIGNED", "18446744073709551615"},
				{"num", "DECIMAL(20,4)", "-12.5"},
				{"at", "DATETIME(3)", "'2024-02-29 13:00:00.5'"},
				{"ts", "TIMESTAMP NULL", "'2024-02-29 13:00:00'"},
				{"day", "DATE", "'2024-02-29'"},
				{"bin", "VARBINARY(20)", "x'00ff27'"},
				{"e", "ENUM('a','b')", "'b'"},
				{"f", "FLOAT", "0.1"},
				{"latin", "VARCHAR(20) CHARACTER SET latin1", "'é'"},
				{"bits", "BIT(9)", "b'101'"},
				{"yr", "YEAR", "2024"},
			}
			var cols, vals, mods []string
			for _, c := range types {
				cols, vals = append(cols, c.name+" "+c.typ), append(vals, c.value)
				mods = append(mods, fmt.Sprintf(`{name: %[1]s, key: "k{%[1]s}", from: {table: SCHEMA.odd}}`, c.name))
			}
			r := newVerifyRig(t, target, "odd ("+strings.Join(cols, ", ")+")", "["+strings.Join(mods, ",")+"]")
			r.follow()
			r.exec("INSERT INTO " + r.schema + ".odd VALUES (" + strings.Join(vals, ",") + ")")
			for _, m := range r.verify(exitClean).Modules {
				if m.Keys != 1 || m.Scanned != 1 {
					t.Errorf("%+v", m)
				}
			}
			for _, m := range r.cfg.Modules {
				for _, id := range []string{"knone", "other", "k漢", "k0", "k\xff"} {
					r.spoil(m, id, 0, "{}")
				}
			}
			for _, m := range r.verify(exitDiffers).Modules {
				if m.Extra != 5 || m.Extra != m.Stale+m.Missing+m.Wrong+5 {
					t.Errorf("%+v", m)
				}
			}
		})
	}
}
