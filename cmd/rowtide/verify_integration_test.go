//go:build integration

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
)

// verifyModules are one of each codec and layout, with and without filters,
// computed fields, composite keys and keys that cannot be taken apart.
const verifyModules = `[
 {name: item, key: "{a}:{b}", from: {table: SCHEMA.item, columns: [a, b, name AS title], where: "state != 'hidden'", fields: [{name: loud, expr: upper(name)}]}},
 {name: pack, key: "{a}-{b}", codec: msgpack, from: {table: SCHEMA.item, where: "state != 'hidden'"}},
 {name: raw, key: "{a}:{b}", codec: raw, from: {table: SCHEMA.item, columns: [name], where: "state != 'hidden'"}},
 {name: bare, key: "{a}:{b}", layout: plain, from: {table: SCHEMA.item, columns: [a, name], where: "state != 'hidden'"}},
 {name: tight, key: "{a}{b}", layout: plain, codec: raw, from: {table: SCHEMA.item, columns: [name], where: "state != 'hidden'"}},
 {name: page, key: "{name}", rebuild: {one: "SELECT name, COUNT(*) AS n FROM SCHEMA.item WHERE name IN (:keys) AND state != 'hidden' GROUP BY name",
   many: [{name: all, query: "SELECT name AS ` + "`$key`" + `, a, b FROM SCHEMA.item WHERE name IN (:keys) ORDER BY a, b"}]}, watch: [{table: SCHEMA.item, key: "{name}"}]},
 {name: page_pack, key: "{name}", codec: msgpack, layout: plain, rebuild: {one: "SELECT name, a FROM SCHEMA.item WHERE name IN (:keys) AND state != 'hidden'"}, watch: [{table: SCHEMA.item, key: "{name}"}]}
]`

// verifyRig is a schema with a daemon that follows it.
type verifyRig struct {
	t      *testing.T
	db     *sql.DB
	rdb    *redis.Client
	schema string
	path   string
	cfg    config.Config
	topic  string
}

func newVerifyRig(t *testing.T, target testenv.SQLTarget, table, modules string) *verifyRig {
	t.Helper()
	r := &verifyRig{t: t, schema: testenv.UniqueName(t, "verify"), topic: testenv.UniqueName(t, "verify")}
	var err error
	if r.db, err = sql.Open("mysql", target.DSN("")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.db.Close() })
	r.exec("CREATE DATABASE " + r.schema)
	t.Cleanup(func() { _, _ = r.db.ExecContext(context.Background(), "DROP DATABASE "+r.schema) })
	r.exec("CREATE TABLE " + r.schema + "." + table)
	r.rdb = redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	t.Cleanup(func() { r.rdb.Close() })
	g := goodConfig(t, target, r.schema)
	g.kafka = fmt.Sprintf(`{brokers: ["%s"], topic: %[2]s, control_topic: %[2]s.control, dlq_topic: %[2]s.dlq, partitions: 3}`, strings.Join(testenv.Kafka(t), `","`), r.topic)
	g.modules = strings.ReplaceAll(strings.ReplaceAll(modules, "\n", ""), "SCHEMA", r.schema)
	g.more = fmt.Sprintf("http: {listen: %q}\nname: %s", testenv.FreeAddr(t), r.topic)
	r.path = g.write(t)
	if r.cfg, err = config.Load(r.path); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *verifyRig) exec(q string, args ...any) {
	r.t.Helper()
	if _, err := r.db.ExecContext(r.t.Context(), q, args...); err != nil {
		r.t.Fatalf("%s: %v", q, err)
	}
}

// follow starts the daemon and waits until it does.
func (r *verifyRig) follow() *testenv.Program {
	r.t.Helper()
	p := startProcess(r.t, nil, "run", "-c", r.path)
	eventually(r.t, "the daemon runs", time.Minute, func() (bool, string) {
		return strings.Contains(p.Log.String(), "msg=running"), p.Log.String()
	})
	return p
}

// verify runs the command and reads its report.
func (r *verifyRig) verify(code int, flags ...string) verifyReport {
	r.t.Helper()
	res := rowtideCommand(r.t, nil, append([]string{"verify", "-c", r.path, "--json"}, flags...)...)
	var rep verifyReport
	if err := json.Unmarshal([]byte(res.stdout), &rep); err != nil || res.code != code {
		r.t.Fatalf("verify %v exits %d, want %d (%v):\n%s%s", flags, res.code, code, err, res.stdout, res.stderr)
	}
	return rep
}

// open connects like the commands do.
func (r *verifyRig) open() (*daemon, *verifier) {
	r.t.Helper()
	quietLibraries()
	d := newDaemon(r.cfg, newLogger(&testenv.Log{}, r.cfg.Log))
	r.t.Cleanup(func() { _ = d.close() })
	if err := d.preflight(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	v, err := d.verifier()
	if err != nil {
		r.t.Fatal(err)
	}
	return d, v
}

// name is the key's in Redis.
func (r *verifyRig) name(module, id string) string {
	return rowtide.Key{Module: module, Version: 1, ID: id}.Redis(r.cfg.Redis.Prefix)
}

func (r *verifyRig) set(name string, value any) {
	r.t.Helper()
	if err := r.rdb.Set(r.t.Context(), name, value, 0).Err(); err != nil {
		r.t.Fatal(err)
	}
}

// spoil puts a value under a key, of a version long ago, as the layout wants it.
func (r *verifyRig) spoil(m aggregator.ModuleConfig, id string, flags rowtide.Flags, payload string) {
	r.t.Helper()
	v, err := rowtide.NewVersion(1, 1, 1)
	if err != nil {
		r.t.Fatal(err)
	}
	name := r.name(m.Name, id)
	if m.Layout == aggregator.LayoutPlain {
		r.set(name, payload)
		r.set(overwrite.VersionKey(name), overwrite.PlainVersion(v, flags))
		return
	}
	e := rowtide.Entry{Key: rowtide.Key{Module: m.Name, Version: 1, ID: id}, Version: v, Flags: flags, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte(payload)}
	r.set(name, e.AppendEnvelope(nil))
}

// Every kind of difference in every codec and layout is found, repaired and told
// to the nodes.
func TestVerify_FindsAndRepairsEveryKind(t *testing.T) {
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			r := newVerifyRig(t, target, "item (a INT, b VARCHAR(20) COLLATE utf8mb4_general_ci, name VARCHAR(40) COLLATE utf8mb4_general_ci NOT NULL, state VARCHAR(10), PRIMARY KEY (b, a)) CHARSET utf8mb4", verifyModules)
			p := r.follow()
			for i := range 60 {
				r.exec("INSERT INTO "+r.schema+".item VALUES (?, ?, ?, ?)", i, fmt.Sprintf("x%d", i), fmt.Sprintf("Näme %d", i), map[bool]string{true: "hidden", false: "on"}[i%10 == 9])
			}
			r.exec("DELETE FROM "+r.schema+".item WHERE a = ?", 58)
			if rep := r.verify(exitClean); rep.Keys != 7*59 || rep.Modules[0].Scanned != 60 {
				t.Fatalf("before: %+v %+v", rep, rep.Modules[0])
			}
			checkGet(t, r)
			r.spoilAll()
			rep := r.verify(exitDiffers)
			for _, m := range rep.Modules {
				if m.Missing != 2 || m.Stale != 3 || m.Extra != 3 || m.Wrong != 1 {
					t.Errorf("%s: %d missing, %d stale, %d extra, %d wrong; want 2, 3, 3, 1: %+v", m.Module, m.Missing, m.Stale, m.Extra, m.Wrong, m.Differences)
				}
			}
			if rep := r.verify(exitDiffers, "-m", "item,pack", "--allow-missing", "--max-diffs", "1", "--rate", "2000"); len(rep.Modules) != 2 || rep.Differences != 14 || rep.Modules[1].Tolerated != 2 || len(rep.Modules[1].Differences) != 1 {
				t.Errorf("two modules: %+v", rep)
			}
			if rep := r.verify(exitClean, "--repair"); rep.Repaired != 7*9 {
				t.Errorf("repaired %d: %+v", rep.Repaired, rep)
			}
			if rep := r.verify(exitClean); rep.Repaired != 0 {
				t.Errorf("after: %+v", rep)
			}
			r.checkRepaired()
			r.exec("UPDATE "+r.schema+".item SET name='later' WHERE a = ?", 1)
			r.verify(exitClean)
			if code := p.Terminate(t); code != exitClean {
				t.Errorf("daemon exits %d:\n%s", code, p.Log)
			}
			checkRepairWithoutDaemon(r)
		})
	}
}

// id is the key of row i in a module.
func (r *verifyRig) id(m aggregator.ModuleConfig, i int) string {
	switch m.Name {
	case "pack":
		return fmt.Sprintf("%d-x%d", i, i)
	case "tight":
		return fmt.Sprintf("%dx%d", i, i)
	case "page", "page_pack":
		return fmt.Sprintf("Näme %d", i)
	}
	return fmt.Sprintf("%d:x%d", i, i)
}

func (r *verifyRig) spoilAll() {
	r.t.Helper()
	for _, m := range r.cfg.Modules {
		missing := []string{r.name(m.Name, r.id(m, 1)), r.name(m.Name, r.id(m, 2))}
		for _, name := range missing {
			missing = append(missing, overwrite.VersionKey(name))
		}
		if err := r.rdb.Del(r.t.Context(), missing...).Err(); err != nil {
			r.t.Fatal(err)
		}
		other := `{"other":1}`
		if m.Codec == aggregator.CodecMsgpack {
			other = "\x81\xa5other\x01"
		}
		r.spoil(m, r.id(m, 3), 0, other)
		r.spoil(m, r.id(m, 4), rowtide.FlagFill, other)
		r.spoil(m, r.id(m, 5), rowtide.FlagEmpty, "")
		r.spoil(m, r.id(m, 58), 0, other)                        // the row is deleted
		r.spoil(m, r.id(m, 9), 0, other)                         // the row is filtered out
		r.spoil(m, r.id(m, 777), rowtide.FlagFill, other)        // there never was one
		r.spoil(m, r.id(m, 778), rowtide.FlagEmpty, "")          // which is right
		r.spoil(m, r.id(m, 6), rowtide.FlagEmpty, "not a value") // plain only
		if m.Layout != aggregator.LayoutPlain {
			r.set(r.name(m.Name, r.id(m, 6)), "somebody else's")
		}
	}
}

// checkRepaired: extras are EMPTY by a change, and nodes have heard of all.
func (r *verifyRig) checkRepaired() {
	t := r.t
	t.Helper()
	announced := readTopic(t, r.topic)
	for _, m := range r.cfg.Modules {
		for _, i := range []int{1, 2, 3, 4, 5, 6, 9, 58, 777} {
			id := r.id(m, i)
			g := r.get(exitClean, m.Name, id)
			gone := i == 9 || i == 58 || i == 777
			if (g.State == stateEmpty) != gone || gone && !g.Deleted {
				t.Errorf("%s %s is %s, deleted %t", m.Name, id, g.State, g.Deleted)
			}
			if got := announced[m.Name+":"+id]; got != g.Version {
				t.Errorf("%s %s has version %s, announced is %s", m.Name, id, g.Version, got)
			}
		}
	}
}

// checkRepairWithoutDaemon: with changes that nobody applied, no version is known
// to be safe.
func checkRepairWithoutDaemon(r *verifyRig) {
	r.t.Helper()
	r.exec("UPDATE "+r.schema+".item SET name='unseen' WHERE a = ?", 1)
	d, v := r.open()
	v.repair, v.behind.gaveUp = d.repairer(), true // it was waited for already
	rep, err := v.module(r.t.Context(), d.modules[0])
	if err != nil || rep.Repaired != 0 || rep.Stale != 1 || !strings.Contains(rep.Differences[0].Unrepaired, "no daemon follows") {
		r.t.Errorf("repair without a daemon: %+v, %v", rep, err)
	}
}

// get is the command without its process.
func (r *verifyRig) get(code int, module, id string, flags ...string) *gotten {
	r.t.Helper()
	d := newDaemon(r.cfg, newLogger(&testenv.Log{}, r.cfg.Log))
	defer func() { _ = d.close() }()
	g, err := d.get(r.t.Context(), module, id, slices.Contains(flags, "--db"))
	if err == nil {
		err = g.verdict()
	}
	if got := exitCode(err); got != code {
		r.t.Fatalf("get %s %s %v exits %d, want %d: %v", module, id, flags, got, code, err)
	}
	return g
}
