// Command peers measures localsync beside other Go caches, at the versions of its
// go.mod, on servers that are there already. `make bench ARGS='-only peers'` runs
// it; docs/benchmarks.md explains and keeps the figures. It is a module of its own,
// so that the peers' dependencies are nobody else's.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

type bench struct {
	redis   string
	rdb     *redis.Client
	kafka   string // brokers, with commas between
	fake    string // the same of an in-process broker
	runs    int
	seconds int
	profile string
}

// parts are what can be measured, in the order in which it is.
var parts = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"local", (*bench).local},
	{"twolevel", (*bench).twoLevel},
	{"invalidate", (*bench).invalidate},
	{"memory", (*bench).memory},
	{"storm", (*bench).storm},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func main() {
	var b bench
	flag.StringVar(&b.redis, "redis", "", "address of a Redis that may be emptied")
	flag.StringVar(&b.kafka, "kafka", "", "brokers of a Kafka")
	flag.StringVar(&b.fake, "fake-kafka", "", "brokers of an in-process Kafka")
	flag.IntVar(&b.runs, "runs", 3, "counted runs")
	flag.IntVar(&b.seconds, "seconds", 10, "length of a run with a rate")
	flag.StringVar(&b.profile, "profile", "", "file for a CPU profile of this process")
	only := flag.String("only", strings.Join(partNames(), ","), "the parts to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, strings.Split(*only, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, only []string) error {
	if b.redis == "" || b.kafka == "" {
		return fmt.Errorf("set -redis and -kafka")
	}
	for _, name := range only {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("no part %q: want some of %s", name, strings.Join(partNames(), ","))
		}
	}
	if b.profile != "" {
		f, err := os.Create(b.profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	b.rdb = redis.NewClient(&redis.Options{Addr: b.redis})
	defer func() { _ = b.rdb.Close() }()
	for _, p := range parts {
		if !slices.Contains(only, p.name) {
			continue
		}
		fmt.Printf("\n peers: %s\n", p.name)
		if err := b.rdb.FlushDB(ctx).Err(); err != nil {
			return err
		}
		if err := p.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func bar(ok bool, format string, args ...any) {
	verdict := "met"
	if !ok {
		verdict = "NOT met"
	}
	fmt.Printf("  bar: "+format+": %s\n", append(args, verdict)...)
}

func median(of []float64) float64 {
	s := slices.Sorted(slices.Values(of))
	return s[len(s)/2]
}

// rank is the d at p parts of a thousand.
func rank(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)*p/1000, len(s)-1)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f", float64(d.Nanoseconds())/1e6) }
func us(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Nanoseconds())/1e3) }

// zipf are samples of n ids, the nth as frequent as 1/n^0.99. Go's own generator
// takes exponents above 1 only. Neighbours in rank are no neighbours in memory.
func zipf(n, samples int) []int32 {
	sum, total := make([]float64, n), 0.0
	for i := range sum {
		total += math.Pow(float64(i+1), -0.99)
		sum[i] = total
	}
	dice := rand.New(rand.NewPCG(1, 2))
	out := make([]int32, samples)
	for i := range out {
		at := sort.SearchFloat64s(sum, dice.Float64()*total)
		out[i] = int32(min(at, n-1) * 7919 % n)
	}
	return out
}

// pace calls fn with the numbers up to n, rate times a second, whether or not the
// last is done; due is when its turn was.
func pace(ctx context.Context, rate, n int, fn func(i int, due time.Time)) {
	began := time.Now()
	for i := range n {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		if ctx.Err() != nil {
			return
		}
		fn(i, due)
	}
}
