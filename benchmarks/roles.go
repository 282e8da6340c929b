package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

const rolePartitions = 12

// roles measures one log through a reader and 1, 2 and 4 appliers, from the
// reader's first transaction until every change is in Redis and on Kafka; and the
// reader alone. Beside each other on one machine the processes compete for the
// same cores, so that the CPU of each counts as much as the rate.
func (b *bench) roles(ctx context.Context) error {
	if err := b.write(ctx, singleRows); err != nil {
		return err
	}
	for _, appliers := range []int{0, 1, 2, 4} {
		var rate, reading, applying figures
		for range b.runs {
			r, err := b.divided(ctx, appliers)
			if err != nil {
				return err
			}
			rate, reading, applying = append(rate, r.rate), append(reading, r.reader), append(applying, r.appliers)
		}
		name := fmt.Sprintf("reader, %d appliers", appliers)
		if appliers == 0 {
			name = "reader alone"
		}
		fmt.Printf("  %-31s %s changes/s; CPU a change: reader %.1f us, appliers %.1f us\n", name, rate, reading.median(), applying.median())
	}
	return nil
}

// dividedRun is what one run came to: changes a second, and CPU in µs a change.
type dividedRun struct{ rate, reader, appliers float64 }

func (b *bench) divided(ctx context.Context, appliers int) (r dividedRun, err error) {
	if err := b.emptyRedis(ctx); err != nil {
		return r, err
	}
	name := b.nextName()
	var all []*daemon
	for range appliers {
		d, err := b.startRole(ctx, name, "applier", len(all))
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, d.stop()) }()
		all = append(all, d)
	}
	if appliers > 0 {
		if err := await(ctx, all, func(claimed int, _ float64) bool { return claimed == rolePartitions }); err != nil {
			return r, err
		}
	}
	head, err := b.head(ctx)
	if err != nil {
		return r, err
	}
	reader, err := b.startRole(ctx, name, "reader", len(all))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, reader.stop()) }()
	var began time.Time
	var first, last int64
	cpu := func() (used float64) {
		for _, d := range all {
			used += cpuSeconds(d.pid())
		}
		return used
	}
	var readerCPU, appliersCPU float64
	if err := reader.await(ctx, awaitLimit, func(s daemonStatus) bool {
		if began.IsZero() && s.Changes > 0 {
			began, first, readerCPU, appliersCPU = time.Now(), s.Changes, cpuSeconds(reader.pid()), cpu()
		}
		last = s.Changes
		return s.Position == head
	}); err != nil {
		return r, err
	}
	if appliers > 0 {
		if err := await(ctx, all, func(claimed int, behind float64) bool { return claimed == rolePartitions && behind == 0 }); err != nil {
			return r, err
		}
	}
	n := float64(last - first)
	return dividedRun{
		rate:   n / time.Since(began).Seconds(),
		reader: (cpuSeconds(reader.pid()) - readerCPU) / n * 1e6, appliers: (cpu() - appliersCPU) / n * 1e6,
	}, nil
}

// startRole runs one of several processes over the benchmark's table.
func (b *bench) startRole(ctx context.Context, name, role string, n int) (*daemon, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	cfg := fmt.Sprintf(`
source: {addr: "%[2]s", user: root, server_id: 4711, start_at: earliest, backfill: {auto: false}}
redis: {addrs: ["%[3]s"], prefix: %[1]s}
kafka: {brokers: ["%[4]s"], topic: %[1]s.invalidations, partitions: %[6]d}
http: {listen: "%[5]s"}
modules: [%[7]s]
`, name, b.sql.Addr, b.redis.Addr, strings.Join(b.brokers, `","`), addr, rolePartitions, itemModule)
	d, err := b.spawn(fmt.Sprintf("%s-%s%d", name, role, n), cfg, addr, "run", "--role", role)
	if err != nil {
		return nil, err
	}
	if err := d.await(ctx, awaitLimit, func(daemonStatus) bool { return true }); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// await waits until the appliers' metrics fulfil ok, which is given the claimed
// partitions and the records that are not applied yet.
func await(ctx context.Context, appliers []*daemon, ok func(claimed int, behind float64) bool) error {
	deadline := time.Now().Add(awaitLimit)
	for time.Now().Before(deadline) {
		claimed, behind := 0, 0.0
		for _, d := range appliers {
			c, n, err := d.share(ctx)
			if err != nil {
				return err
			}
			claimed, behind = claimed+c, behind+n
		}
		if ok(claimed, behind) {
			return nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	log, _ := os.ReadFile(appliers[0].log.Name())
	return fmt.Errorf("the appliers did not get there; the log of the first ends:\n%s", log)
}

// share is what an applier has of the partitions.
func (d *daemon) share(ctx context.Context) (claimed int, behind float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.http+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var n float64
		switch name, value, _ := strings.Cut(lines.Text(), " "); {
		case strings.HasPrefix(name, "rowtide_changes_claimed{"):
			claimed++
		case strings.HasPrefix(name, "rowtide_changes_behind_records{"):
			_, _ = fmt.Sscan(value, &n)
			behind += n
		}
	}
	return claimed, behind, lines.Err()
}
