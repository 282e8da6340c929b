package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

const (
	pages     = 10_000
	pageBytes = 200
	// firstPage has all pages' ids as long as this one: redis-benchmark puts twelve
	// digits in the place of __rand_int__.
	firstPage = 1_000_000_000_000
	// pageModule makes 200 bytes of JSON of a page.
	pageModule = `{name: page, key: "{id}", from: {table: bench.page, columns: [body]}}`
	// turnSeconds is how long each redis-benchmark takes at most; a shorter -seconds
	// makes it shorter.
	turnSeconds = 3
	// tryRequests tell how many requests a turn is. They do not count.
	tryRequests = 20_000
)

// command is what redis-benchmark sends.
type command struct {
	name string
	args []string
}

var commands = []command{
	{"GET", []string{"GET", randomPage}},
	{"GET, pipelines of 16", []string{"-P", "16", "GET", randomPage}},
	{"GET, pipelines of 100", []string{"-P", "100", "GET", randomPage}},
	{"MGET of 10, pipelines of 16", append([]string{"-P", "16", "MGET"}, slices.Repeat([]string{randomPage}, 10)...)},
}

const randomPage = "page:1__rand_int__"

// sidecar measures `rowtide node` beside the Redis behind it, with the same clients, the
// same keys and values as long: Redis has them as plain strings, the sidecar from a
// daemon's module. It has all of them in memory.
func (b *bench) sidecar(ctx context.Context) (err error) {
	if b.measuredBefore() {
		return nil
	}
	name := b.nextName()
	d, err := b.startPages(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	n, addr, err := b.startNode(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = rdb.Close() }()
	for range 2 { // the second time from memory
		if err := readPages(ctx, rdb); err != nil {
			return err
		}
	}
	before, err := readsOf(ctx, rdb)
	if err != nil {
		return err
	}
	fmt.Printf("  redis-benchmark, 50 clients, %d keys of %d bytes\n", pages, pageBytes)
	for _, c := range commands {
		if err := b.compare(ctx, c, addr, n.pid()); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	after, err := readsOf(ctx, rdb)
	if err != nil {
		return err
	}
	local, rest := after.local-before.local, after.rest-before.rest
	fmt.Printf("  of %d keys read from the sidecar it had %.3f%% in memory\n", local+rest, 100*float64(local)/float64(local+rest))
	return nil
}

// startPages returns when Redis has all pages, as a daemon writes them and as plain
// strings; the daemon goes on, for the sidecar has to hear from one.
func (b *bench) startPages(ctx context.Context, name string) (d *daemon, err error) {
	db, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE bench.page (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, body VARCHAR(200) NOT NULL)"); err != nil {
		return nil, err
	}
	if err := b.emptyRedis(ctx); err != nil {
		return nil, err
	}
	if d, err = b.startDaemonOf(ctx, pageModule, name, latest); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	body := strings.Repeat("x", pageBytes-len(`{"body":""}`))
	if _, err := db.ExecContext(ctx, "INSERT INTO bench.page SELECT ? + a.k * 100 + b.k, ? FROM bench.hundred a, bench.hundred b", firstPage, body); err != nil {
		return nil, err
	}
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	if _, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range pages {
			p.Set(ctx, page(i), `{"body":"`+body+`"}`, 0)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return d, b.caughtUp(ctx, d)
}

// page is a key, in Redis and in the sidecar.
func page(i int) string { return "page:" + strconv.Itoa(firstPage+i) }

// startNode runs a sidecar of the daemon with the name, on loopback, and returns when it
// knows the daemon's modules.
func (b *bench) startNode(ctx context.Context, daemon string) (n *daemon, addr string, err error) {
	addr, err = freeAddr(ctx)
	if err != nil {
		return nil, "", err
	}
	web, err := freeAddr(ctx)
	if err != nil {
		return nil, "", err
	}
	cfg := fmt.Sprintf(`
redis: {addrs: ["%[2]s"], prefix: %[1]s}
kafka: {brokers: ["%[3]s"], topic: %[1]s.invalidations}
node: {listen: "%[4]s", http: "%[5]s"}
`, daemon, b.redis.Addr, strings.Join(b.brokers, `","`), addr, web)
	if n, err = b.spawn(daemon+"-node", cfg, web, "node"); err != nil {
		return nil, "", err
	}
	if err := n.until(ctx, awaitLimit, func() bool { return n.ready(ctx) }); err != nil {
		return nil, "", errors.Join(err, n.stop())
	}
	return n, addr, nil
}

func (d *daemon) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.http+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// readPages reads every page, which must be there.
func readPages(ctx context.Context, rdb *redis.Client) error {
	keys := make([]string, pages)
	for i := range keys {
		keys[i] = page(i)
	}
	for some := range slices.Chunk(keys, 100) {
		got, err := rdb.MGet(ctx, some...).Result()
		if err != nil {
			return err
		}
		for i, v := range got {
			if s, _ := v.(string); len(s) != pageBytes {
				return fmt.Errorf("the sidecar has %d bytes under %s, want %d", len(s), some[i], pageBytes)
			}
		}
	}
	return nil
}

// reads are the keys that a sidecar was asked for, by where it found them.
type reads struct{ local, rest int }

var pageReads = regexp.MustCompile(`page\.1:local=(\d+),redis=(\d+),empty=(\d+),stale=(\d+),errors=(\d+)`)

// readsOf fails when the sidecar failed, or had no page: those reads are none.
func readsOf(ctx context.Context, rdb *redis.Client) (r reads, err error) {
	info, err := rdb.Info(ctx, "modules").Result()
	if err != nil {
		return r, err
	}
	m := pageReads.FindStringSubmatch(info)
	if m == nil {
		return r, fmt.Errorf("no reads of pages in %q", info)
	}
	if m[3] != "0" || m[5] != "0" {
		return r, fmt.Errorf("the sidecar did not give all pages: %s", m[0])
	}
	r.local, err = strconv.Atoi(m[1])
	if err != nil {
		return r, err
	}
	r.rest, err = strconv.Atoi(m[2])
	return r, err
}

// compare has redis-benchmark send c to Redis and to the sidecar in turn.
func (b *bench) compare(ctx context.Context, c command, addr string, pid int) error {
	sides := []struct {
		addr      string
		pid, n    int
		rate, cpu figures // commands a second; microseconds of the process a command
	}{
		{addr: b.redis.Addr, pid: b.redis.Pid()},
		{addr: addr, pid: pid},
	}
	for i := range sides {
		rate, err := send(ctx, sides[i].addr, c, tryRequests)
		if err != nil {
			return err
		}
		sides[i].n = max(tryRequests, int(rate*float64(min(turnSeconds, b.seconds))))
	}
	var ratio figures
	for range b.runs {
		for i := range sides {
			s := &sides[i]
			before := cpuSeconds(s.pid)
			rate, err := send(ctx, s.addr, c, s.n)
			if err != nil {
				return err
			}
			s.rate = append(s.rate, rate)
			s.cpu = append(s.cpu, (cpuSeconds(s.pid)-before)/float64(s.n)*1e6)
		}
		ratio = append(ratio, sides[1].rate[len(ratio)]/sides[0].rate[len(ratio)])
	}
	fmt.Printf("  %-29s sidecar %s /s, Redis %s /s\n", c.name, sides[1].rate, sides[0].rate)
	fmt.Printf("    ratio %s; CPU a command: sidecar %s us, Redis %s us\n", ratio.fine(), sides[1].cpu.fine(), sides[0].cpu.fine())
	return nil
}

func send(ctx context.Context, addr string, c command, n int) (float64, error) {
	args := []string{"-c", "50", "-n", strconv.Itoa(n), "-r", strconv.Itoa(pages)}
	return redisBenchmark(ctx, addr, append(args, c.args...)...)
}
