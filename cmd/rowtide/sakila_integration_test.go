//go:build integration

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

const sakilaDir = "../../examples/sakila/"

// Four writers change 20,000 things while the daemon is killed five times; then
// Redis holds what the database holds, no version has ever gone back, and every
// entry was announced.
func TestSakila_KilledFiveTimesEndsWithNoDifference(t *testing.T) {
	starts := map[string]func(context.Context, testenv.Options) (*testenv.SQLServer, error){
		testenv.FlavorMariaDB: testenv.StartMariaDB, testenv.FlavorMySQL: testenv.StartMySQL,
	}
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			// A server of its own: the log is then Sakila's and nothing else.
			srv, err := starts[target.Flavor](t.Context(), testenv.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = srv.Stop(context.Background()) })
			runSakila(t, srv)
		})
	}
}

func runSakila(t *testing.T, srv *testenv.SQLServer) {
	db, err := sql.Open("mysql", srv.DSN("sakila")+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	loadSakila(t, srv)

	prefix, topic := testenv.UniqueName(t, "sakila"), testenv.UniqueName(t, "inv")
	env := []string{
		"ROWTIDE_SOURCE_ADDR=" + srv.Addr, "ROWTIDE_REDIS_ADDRS=" + testenv.Redis(t), "ROWTIDE_REDIS_PREFIX=" + prefix,
		"ROWTIDE_KAFKA_BROKERS=" + strings.Join(testenv.Kafka(t), ","), "ROWTIDE_KAFKA_TOPIC=" + topic,
		"ROWTIDE_HTTP_LISTEN=" + testenv.FreeAddr(t),
	}
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	defer rdb.Close()

	w := &sakilaWriters{db: db, want: 20_000}
	writing := w.start(t.Context(), 4)
	ctx, stopWatch := context.WithCancel(t.Context())
	watching := watchVersions(ctx, t, rdb, prefix)

	cfg := sakilaDir + "rowtide.yaml"
	for i := range 5 {
		p := startProcess(t, env, "run", "-c", cfg)
		// Long enough to be in the middle of things, never the same twice.
		goal := int64((i + 1) * 3000)
		eventually(t, "writers under way", 2*time.Minute, func() (bool, string) {
			n := w.done.Load()
			return n >= goal, fmt.Sprint(n, " of ", goal)
		})
		p.Kill()
		if s := p.Log.String(); strings.Contains(s, "level=ERROR") || strings.Contains(s, "rowtide:") {
			t.Fatalf("daemon failed before it was killed:\n%s", s)
		}
	}
	last := startProcess(t, env, "run", "-c", cfg)
	<-writing
	t.Logf("%d changes committed, %d refused by foreign keys and deadlocks", w.done.Load(), w.refused.Load())

	res := rowtideCommand(t, env, "verify", "-c", cfg)
	if res.code != exitClean || !strings.Contains(res.stdout, "\n0 differences") {
		t.Fatalf("verify exits %d:\n%s%s\ndaemon:\n%s", res.code, res.stdout, res.stderr, last.Log)
	}
	t.Logf("verify:\n%s", res.stdout)
	for line := range strings.Lines(last.Log.String()) {
		// Locking reads among these writers deadlock now and then; all else is silent.
		if !strings.Contains(line, "msg=running") && !strings.Contains(line, `msg="backfill`) && !strings.Contains(line, "rebuild query keeps failing") {
			t.Errorf("the log of a steady state says: %s", line)
		}
	}
	stopWatch()
	<-watching
	if code := last.Terminate(t); code != exitClean {
		t.Errorf("daemon exits %d after SIGTERM, want 0:\n%s", code, last.Log)
	}
	checkAnnounced(t, rdb, prefix, topic)
}

// loadSakila feeds the files to the server, statement by statement.
func loadSakila(t *testing.T, srv *testenv.SQLServer) {
	t.Helper()
	db, err := sql.Open("mysql", srv.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	schema, err := os.Open(sakilaDir + "schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	defer schema.Close()
	execScript(t, conn, schema)
	packed, err := os.Open(sakilaDir + "data.sql.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	data, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	execScript(t, conn, data)
}

// execScript understands what the sample's files use of the clients' own
// language: comments and DELIMITER.
func execScript(t *testing.T, conn *sql.Conn, r io.Reader) {
	t.Helper()
	delim, stmt := ";", strings.Builder{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if d, ok := strings.CutPrefix(line, "DELIMITER "); ok {
			delim = d
			continue
		}
		if line == "" || strings.HasPrefix(line, "--") {
			continue
		}
		text, ends := strings.CutSuffix(line, delim)
		stmt.WriteString(text + "\n")
		if !ends {
			continue
		}
		if _, err := conn.ExecContext(t.Context(), stmt.String()); err != nil {
			t.Fatalf("load sakila: %v in %.200s", err, stmt.String())
		}
		stmt.Reset()
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
}

// sakilaWriters commit random changes until there are enough.
type sakilaWriters struct {
	db            *sql.DB
	want          int64
	done, refused atomic.Int64
}

func (w *sakilaWriters) start(ctx context.Context, n int) <-chan struct{} {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for ctx.Err() == nil && w.done.Load() < w.want {
				if err := w.change(ctx, rng); err != nil {
					w.refused.Add(1)
					continue
				}
				w.done.Add(1)
			}
		})
	}
	out := make(chan struct{})
	go func() { wg.Wait(); close(out) }()
	return out
}

// change is one transaction. A refusal (a foreign key, a duplicate, a deadlock)
// leaves nothing behind.
func (w *sakilaWriters) change(ctx context.Context, rng *rand.Rand) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := w.statements(ctx, tx, rng); err != nil {
		return err
	}
	if rng.IntN(20) == 0 {
		return tx.Rollback() // must leave no trace either
	}
	return tx.Commit()
}

func (w *sakilaWriters) statements(ctx context.Context, tx *sql.Tx, rng *rand.Rand) error {
	film, actor, customer := 1+rng.IntN(1100), 1+rng.IntN(230), 1+rng.IntN(650)
	do := func(q string, args ...any) error {
		_, err := tx.ExecContext(ctx, q, args...)
		return err
	}
	word := func() string {
		return fmt.Sprintf("%s %d é漢", []string{"RED", "BLUE", `QUO"TE`, "GREEN\n"}[rng.IntN(4)], rng.IntN(1e6))
	}
	switch rng.IntN(16) {
	case 0:
		return do("INSERT INTO film (title, description, release_year, language_id, rental_rate, length, rating, special_features) VALUES (?, ?, 2024, 1, ?, ?, 'PG-13', 'Trailers,Deleted Scenes')",
			word(), word(), float64(rng.IntN(999))/100, rng.IntN(200))
	case 1, 2:
		return do("UPDATE film SET title=?, rental_rate=rental_rate+0.01, rating=ELT(1+?, 'G','PG','R','NC-17'), description=IF(?=0, NULL, description) WHERE film_id=?", word(), rng.IntN(4), rng.IntN(5), film)
	case 3: // a film that was never rented goes, with all that hangs on it
		for _, q := range []string{
			"DELETE FROM film_actor WHERE film_id=?", "DELETE FROM film_category WHERE film_id=?",
			"DELETE FROM inventory WHERE film_id=?", "DELETE FROM film WHERE film_id=?",
		} {
			if err := do(q, film); err != nil {
				return err
			}
		}
		return nil
	case 4: // the key moves, and foreign keys move with it, unlogged on MariaDB
		return do("UPDATE film SET film_id=? WHERE film_id=?", 1+rng.IntN(1100), film)
	case 5:
		return do("UPDATE actor SET actor_id=? WHERE actor_id=?", 1+rng.IntN(230), actor)
	case 6:
		return do("UPDATE actor SET first_name=?, last_name=? WHERE actor_id=?", word(), word(), actor)
	case 7:
		return do("INSERT IGNORE INTO film_actor (actor_id, film_id) VALUES (?, ?), (?, ?)", actor, film, 1+rng.IntN(200), film)
	case 8:
		return do("DELETE FROM film_actor WHERE film_id=? LIMIT 2", film)
	case 9:
		return do("INSERT INTO inventory (film_id, store_id) VALUES (?, ?), (?, 1)", film, 1+rng.IntN(2), 1+rng.IntN(1000))
	case 10:
		return do("UPDATE category SET name=? WHERE category_id=?", word()[:8], 1+rng.IntN(16))
	case 11:
		return do("UPDATE customer SET active=1-active, email=IF(?=0, NULL, ?) WHERE customer_id=?", rng.IntN(3), word(), customer)
	case 12:
		return do("INSERT INTO customer (store_id, first_name, last_name, address_id, create_date) VALUES (?, ?, ?, ?, NOW())", 1+rng.IntN(2), word(), word(), 1+rng.IntN(600))
	case 13:
		return do("UPDATE customer SET customer_id=? WHERE customer_id=?", 1+rng.IntN(700), customer)
	case 14: // many rows at once
		return do("UPDATE film SET rental_rate=rental_rate+0.01 WHERE film_id BETWEEN ? AND ?", film, film+rng.IntN(30))
	default: // many tables at once
		for _, q := range []string{
			"UPDATE store SET address_id=1+(address_id+1)%3, last_update=NOW() WHERE store_id=1+?%2",
			"UPDATE film SET length=length+1 WHERE film_id=?", "DELETE FROM inventory WHERE film_id=? AND inventory_id > 4581 LIMIT 3",
			"DELETE FROM actor WHERE actor_id=200+?%30",
		} {
			if err := do(q, film); err != nil {
				return err
			}
		}
		return nil
	}
}

// watchVersions reads entries all the while and fails the test when the version
// of one has gone back or its key has gone missing.
func watchVersions(ctx context.Context, t *testing.T, rdb *redis.Client, prefix string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		seen := map[string]rowtide.Version{}
		rng := rand.New(rand.NewPCG(1, 1))
		for ctx.Err() == nil {
			var keys []string
			for range 50 {
				keys = append(keys, fmt.Sprintf("%s:film:1:%d", prefix, 1+rng.IntN(200)), fmt.Sprintf("%s:film_page:1:%d", prefix, 1+rng.IntN(200)))
			}
			vals, err := rdb.MGet(ctx, keys...).Result()
			if err != nil {
				continue // the context has ended
			}
			for i, v := range vals {
				s, ok := v.(string)
				if !ok {
					if seen[keys[i]] != 0 {
						t.Errorf("%s was there and is missing: overwritten means never deleted", keys[i])
					}
					continue
				}
				ver, ok := rowtide.EnvelopeVersion([]byte(s))
				if !ok || ver < seen[keys[i]] {
					t.Errorf("%s went from version %s back to %s", keys[i], seen[keys[i]], ver)
				}
				seen[keys[i]] = ver
			}
		}
	}()
	return done
}

// checkAnnounced reads the whole topic: every entry in Redis was announced with
// its version or a later one.
func checkAnnounced(t *testing.T, rdb *redis.Client, prefix, topic string) {
	t.Helper()
	announced := readTopic(t, topic)
	n := 0
	err := scanBatches(t.Context(), rdb, prefix+":*", func(names []string) error {
		for _, name := range names {
			parts := strings.SplitN(name, ":", 4)
			if len(parts) != 4 {
				continue // the checkpoint
			}
			b, err := rdb.Get(t.Context(), name).Bytes()
			if err != nil {
				return err
			}
			ver, _ := rowtide.EnvelopeVersion(b)
			if got := announced[parts[1]+":"+parts[3]]; got < ver {
				t.Errorf("%s has version %s, announced only up to %s", name, ver, got)
			}
			n++
		}
		return nil
	})
	if err != nil || n < 2500 {
		t.Fatalf("compared %d entries with the topic: %v", n, err)
	}
}

// readTopic returns the newest version that the topic announces per module:id,
// and checks that each producer's sequence is dense in each partition.
func readTopic(t *testing.T, topic string) map[string]rowtide.Version {
	t.Helper()
	client, err := sarama.NewClient(testenv.Kafka(t), sarama.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	parts, err := client.Partitions(topic)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]rowtide.Version{}
	for _, p := range parts {
		end, err := client.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			t.Fatal(err)
		}
		readPartition(t, consumer, topic, p, end, out)
	}
	return out
}

func readPartition(t *testing.T, consumer sarama.Consumer, topic string, p int32, end int64, out map[string]rowtide.Version) {
	t.Helper()
	pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	seqs := map[uint64]uint64{}
	bytesOf := map[uint64][]byte{} // the newest record of each producer
	for next := int64(0); next < end; {
		var m *sarama.ConsumerMessage
		select {
		case m = <-pc.Messages():
		case <-time.After(10 * time.Second):
			t.Fatalf("partition %d: no record at offset %d of %d", p, next, end)
		}
		next = m.Offset + 1
		b, err := rowtide.DecodeBatch(m.Value)
		if err != nil {
			t.Fatal(err)
		}
		last, known := seqs[b.Producer]
		if !known {
			last = rowtide.ProducerBase(b.Producer)
		}
		switch {
		case b.Heartbeat() && b.Sequence > last:
			t.Errorf("partition %d offset %d: heartbeat of producer %x announces %d, only %d were seen", p, m.Offset, b.Producer, b.Sequence, last)
		case !b.Heartbeat() && known && b.Sequence == last && bytes.Equal(m.Value, bytesOf[b.Producer]):
			// Its acknowledgement was lost and it was sent again.
		case !b.Heartbeat() && b.Sequence != last+1:
			t.Errorf("partition %d offset %d: producer %x has sequence %d after %d", p, m.Offset, b.Producer, b.Sequence, last)
		}
		seqs[b.Producer] = max(last, b.Sequence)
		if !b.Heartbeat() {
			bytesOf[b.Producer] = m.Value
		}
		for _, it := range b.Items {
			k := it.Key.Module + ":" + it.Key.ID
			out[k] = max(out[k], it.Version)
		}
	}
}
