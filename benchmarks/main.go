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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

type options struct {
	txs      int
	runs     int
	rates    []int
	seconds  int
	outage   time.Duration
	only     []string
	peersOf  string
	flavors  string
	profile  string
	fakeFeed bool
}

func main() {
	var o options
	flag.IntVar(&o.txs, "tx", 300_000, "row changes per throughput run")
	flag.IntVar(&o.runs, "runs", 3, "counted runs of each figure; the median is printed")
	rates := flag.String("rates", "100,1000,10000", "commits per second of the latency runs")
	flag.IntVar(&o.seconds, "seconds", 10, "length of a run with a rate; others follow it")
	flag.DurationVar(&o.outage, "outage", 30*time.Second, "how long Redis hangs")
	only := flag.String("only", "", "some of "+strings.Join(partNames(), ",")+" (default all)")
	flag.StringVar(&o.peersOf, "peers", "", "some of the peers' parts, local,twolevel,invalidate,memory,storm (default all)")
	flag.StringVar(&o.flavors, "servers", "mariadb,mysql", "source servers")
	flag.StringVar(&o.profile, "profile", "", "folder for the daemon's CPU profiles")
	flag.BoolVar(&o.fakeFeed, "fake-kafka", false, "use an in-process broker instead of Apache Kafka")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := o.read(*rates, *only)
	if err == nil {
		err = run(ctx, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// parts are what can be measured, in the order in which it is.
var parts = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"throughput", (*bench).throughput},
	{"bulk", (*bench).bulk},
	{"hops", (*bench).hops},
	{"rival", (*bench).rival},
	{"latency", (*bench).latency},
	{"outage", (*bench).redisOutage},
	{"roles", (*bench).roles},
	{"sidecar", (*bench).sidecar},
	{"peers", (*bench).peers},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func (o *options) read(rates, only string) error {
	if o.txs < 2*rowsPerBulk || o.runs < 1 || o.seconds < 1 {
		return fmt.Errorf("-tx is at least %d, -runs and -seconds at least 1", 2*rowsPerBulk)
	}
	for r := range strings.SplitSeq(rates, ",") {
		n, err := strconv.Atoi(r)
		if err != nil || n < 1 {
			return fmt.Errorf("-rates %q: want numbers with commas between", rates)
		}
		o.rates = append(o.rates, n)
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("-only %q: want some of %s", name, strings.Join(partNames(), ","))
		}
	}
	return nil
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
	for _, p := range parts {
		if len(o.only) > 0 && !slices.Contains(o.only, p.name) {
			continue
		}
		fmt.Printf("\n%s\n", p.name)
		if err := p.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// measuredBefore says so, and prints it, of a part that has nothing to do with the
// source server: the first flavour's run is the only one.
func (b *bench) measuredBefore() bool {
	first, _, _ := strings.Cut(b.flavors, ",")
	if b.sql.Flavor == first {
		return false
	}
	fmt.Println("  the same for every source; see above")
	return true
}

// bench holds the servers of one flavour's runs.
type bench struct {
	options
	bus
	bin     string
	sql     *testenv.SQLServer
	redis   *testenv.RedisServer
	daemons int // started so far, for their names
	closers []func() error
}

// bus is the Kafka in use.
type bus struct {
	kafka     *testenv.KafkaServer // nil: the broker is in this process
	brokers   []string
	kafkaName string
	warm      bool // no JVM has to be warmed up
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
	b.bus = bus{kafka: k, brokers: k.Brokers(), kafkaName: "Apache Kafka"}
	return nil
}

func (b *bench) startFakeKafka() error {
	k, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { k.Close(); return nil })
	b.bus = bus{brokers: k.Brokers(), kafkaName: "in-process Kafka broker", warm: true}
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
	return fmt.Sprintf("%8.0f  (%.0f to %.0f in %d runs)", f.median(), f.min(), f.max(), len(f))
}

// fine is String for what has decimals: the median, and in brackets the range.
func (f figures) fine() string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", f.median(), f.min(), f.max())
}

func (f figures) min() float64 { return slices.Min(f) }
func (f figures) max() float64 { return slices.Max(f) }

// bar prints whether the run holds what the project asks of itself.
func bar(ok bool, format string, args ...any) {
	verdict := "met"
	if !ok {
		verdict = "NOT met"
	}
	fmt.Printf("  bar: "+format+": %s\n", append(args, verdict)...)
}
