package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
)

// What the project asks of itself beside the rival, with its writes pipelined
// and without.
const (
	rivalPipelinedBar = 2
	rivalBar          = 3
)

// rival measures Rowtide beside a small writer of the kind that teams write
// themselves (package rival): the same log, the same five columns as JSON, the
// same ids, the same time to live, and one observer, who times both from the
// log's first key in Redis to its last.
func (b *bench) rival(ctx context.Context) error {
	bin := filepath.Join(filepath.Dir(b.bin), "rival")
	// A module of its own: what canal needs is nothing to the daemon.
	build := exec.CommandContext(ctx, "go", "build", "-C", "benchmarks/rival", "-o", bin, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the rival: %w", err)
	}
	if err := b.write(ctx, singleRows); err != nil {
		return err
	}
	if _, err := b.rowtide(ctx); err != nil { // so that the broker's JVM is warm
		return err
	}
	var own, piped, plain contender
	for range b.runs {
		for _, r := range []struct {
			c   *contender
			run func() (float64, usage, error)
		}{
			{&own, func() (float64, usage, error) { return b.raceDaemon(ctx) }},
			{&piped, func() (float64, usage, error) { return b.raceRival(ctx, bin, true) }},
			{&plain, func() (float64, usage, error) { return b.raceRival(ctx, bin, false) }},
		} {
			rate, used, err := r.run()
			if err != nil {
				return err
			}
			r.c.rate = append(r.c.rate, rate)
			r.c.client, r.c.all = append(r.c.client, used.client*1e6), append(r.c.all, used.total()*1e6)
		}
	}
	own.print("Rowtide, with Kafka")
	piped.print("canal writer, pipelined")
	plain.print("canal writer, a SET a row")
	toPiped, toPlain := own.rate.median()/piped.rate.median(), own.rate.median()/plain.rate.median()
	bar(toPiped >= rivalPipelinedBar, "%d times the pipelined one, has %.2f", rivalPipelinedBar, toPiped)
	bar(toPlain >= rivalBar, "%d times the plain one, has %.2f", rivalBar, toPlain)
	return nil
}

// contender is one of the two, over all runs; CPU in microseconds a row, of its
// own process and of all with the servers.
type contender struct{ rate, client, all figures }

func (c *contender) print(name string) {
	fmt.Printf("  %-31s %s transactions/s; CPU %.1f us each, %.1f with the servers\n", name, c.rate, c.client.median(), c.all.median())
}

func (b *bench) raceDaemon(ctx context.Context) (rate float64, used usage, err error) {
	if err := b.emptyRedis(ctx); err != nil {
		return 0, used, err
	}
	name := b.nextName()
	d, err := b.startDaemon(ctx, name, earliest)
	if err != nil {
		return 0, used, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	return b.race(ctx, rowtide.Key{Module: "item", Version: 1}.Redis(name), d.pid())
}

func (b *bench) raceRival(ctx context.Context, bin string, pipelined bool) (rate float64, used usage, err error) {
	if err := b.emptyRedis(ctx); err != nil {
		return 0, used, err
	}
	name := b.nextName()
	cmd := exec.Command(bin, "-source", b.sql.Addr, "-flavor", b.sql.Flavor, "-redis", b.redis.Addr, //nolint:noctx // stopped by signal
		"-prefix", name, "-pipeline="+strconv.FormatBool(pipelined))
	log, err := os.Create(filepath.Join(filepath.Dir(b.bin), name+".log"))
	if err != nil {
		return 0, used, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, used, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it ends by the signal
	}()
	rate, used, err = b.race(ctx, name+":item:", cmd.Process.Pid)
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return 0, used, fmt.Errorf("%w; its log:\n%s", err, said)
	}
	return rate, used, nil
}

// raceLimit is many times what the plain writer needs for a log.
const raceLimit = 5 * time.Minute

// race is row changes a second between the log's first key in Redis and its last,
// and what a change cost the client and the servers.
func (b *bench) race(ctx context.Context, prefix string, client int) (rate float64, used usage, err error) {
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	appear := func(id int) (time.Time, error) {
		for deadline := time.Now().Add(raceLimit); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(poll) {
			n, err := rdb.Exists(ctx, prefix+strconv.Itoa(id)).Result()
			if err != nil || n == 1 {
				return time.Now(), err
			}
		}
		return time.Time{}, fmt.Errorf("key %s%d did not come", prefix, id)
	}
	began, err := appear(firstID)
	if err != nil {
		return 0, used, err
	}
	before := b.usage(client)
	ended, err := appear(lastID)
	if err != nil {
		return 0, used, err
	}
	n := float64(b.changes())
	return n / ended.Sub(began).Seconds(), b.usage(client).since(before).times(1 / n), nil
}
