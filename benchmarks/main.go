// Command benchmarks measures Rowtide on real, private servers and beside its
// references, all in one run on one machine, and prints the ratios. It is what
// `make bench` runs; docs/benchmarks.md explains and keeps the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/rowtide/rowtide/internal/testenv"
)

type options struct {
	txs      int
	runs     int
	rate     int
	seconds  int
	only     string
	flavors  string
	profile  string
	fakeFeed bool
}

func main() {
	var o options
	flag.IntVar(&o.txs, "tx", 300_000, "single-row transactions per throughput run")
	flag.IntVar(&o.runs, "runs", 3, "counted runs of each figure; the median is printed")
	flag.IntVar(&o.rate, "rate", 1000, "commits per second of the latency run")
	flag.IntVar(&o.seconds, "seconds", 10, "length of the latency run")
	flag.StringVar(&o.only, "only", "", "throughput or latency (default both)")
	flag.StringVar(&o.flavors, "servers", "mariadb,mysql", "source servers")
	flag.StringVar(&o.profile, "profile", "", "folder for the daemon's CPU profiles")
	flag.BoolVar(&o.fakeFeed, "fake-kafka", false, "use an in-process broker instead of Apache Kafka")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "rowtide-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "rowtide")
	if err := goBuild(ctx, bin); err != nil {
		return err
	}
	fmt.Printf("machine: %s, %d cores, %s; every server and client on it\n", cpuName(), runtime.NumCPU(), runtime.Version())
	for flavor := range strings.SplitSeq(o.flavors, ",") {
		if err := runFlavor(ctx, o, flavor, bin); err != nil {
			return fmt.Errorf("%s: %w", flavor, err)
		}
	}
	return nil
}

func runFlavor(ctx context.Context, o options, flavor, bin string) (err error) {
	b := &bench{options: o, bin: bin}
	if err := b.start(ctx, flavor); err != nil {
		return errors.Join(err, b.stop())
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	fmt.Printf("\n%s %s, Redis, %s\n", b.sql.Flavor, b.sql.Version, b.kafkaName)
	if o.only == "" || o.only == "throughput" {
		if err := b.throughput(ctx); err != nil {
			return err
		}
	}
	if o.only != "" && o.only != "latency" {
		return nil
	}
	if err := b.latency(ctx); err != nil || b.fakeFeed {
		return err
	}
	// A JVM on the same two cores is a good part of the tail; this shows the rest.
	fmt.Println("the same with an in-process Kafka broker:")
	if err := b.startFakeKafka(); err != nil {
		return err
	}
	return b.latency(ctx)
}

// bench holds the servers of one flavour's runs.
type bench struct {
	options
	bin       string
	sql       *testenv.SQLServer
	redis     *testenv.RedisServer
	brokers   []string
	kafkaName string
	warm      bool // no JVM has to be warmed up
	daemons   int  // started so far, for their names
	closers   []func() error
}

func (b *bench) start(ctx context.Context, flavor string) (err error) {
	// The writers' own fsyncs are not what is measured: relaxed durability.
	if flavor == testenv.FlavorMySQL {
		b.sql, err = testenv.StartMySQL(ctx, testenv.Options{})
	} else {
		b.sql, err = testenv.StartMariaDB(ctx, testenv.Options{})
	}
	if err != nil {
		return err
	}
	b.onStop(b.sql.Server)
	if b.redis, err = testenv.StartRedis(ctx, testenv.Options{}); err != nil {
		return err
	}
	b.onStop(b.redis.Server)
	if b.fakeFeed {
		return b.startFakeKafka()
	}
	// Peak speed here, and a broker's own pace of heartbeats, where tests want a
	// quick start and a quick restart.
	k, err := testenv.StartKafka(ctx, testenv.Options{
		Java:  []string{"-Xms768m", "-Xmx768m", "-Xmn512m", "-XX:+UseSerialGC"},
		Flags: []string{"broker.heartbeat.interval.ms=2000", "broker.session.timeout.ms=9000"},
	})
	if err != nil {
		return err
	}
	b.onStop(k.Server)
	b.brokers, b.kafkaName = k.Brokers(), "Apache Kafka"
	return nil
}

func (b *bench) startFakeKafka() error {
	k, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { k.Close(); return nil })
	b.brokers, b.kafkaName, b.warm = k.Brokers(), "in-process Kafka broker", true
	return nil
}

func (b *bench) onStop(s *testenv.Server) {
	b.closers = append(b.closers, func() error { return s.Stop(context.Background()) })
}

func (b *bench) stop() error {
	var errs []error
	for _, c := range slices.Backward(b.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// figures are the runs of one measurement.
type figures []float64

func (f figures) median() float64 {
	s := slices.Sorted(slices.Values(f))
	return s[len(s)/2]
}

func (f figures) String() string {
	return fmt.Sprintf("%8.0f  (%.0f to %.0f in %d runs)", f.median(), slices.Min(f), slices.Max(f), len(f))
}
