package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// errVerdict: the demo ran, and what it proves did not hold.
var errVerdict = errors.New("the demo's verdict is no")

func newDemo() *cobra.Command {
	o := demoOptions{}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run a ticket shop on private servers: daemon, three web nodes, stock API, a rush",
		Long: "Starts a private MySQL or MariaDB, Redis and an in-process Kafka broker in a temporary folder, seeds a\n" +
			"ticket shop and runs the daemon, three web nodes and the stock API under mixed load, with a rush in the\n" +
			"middle. Ends with a verdict: exit code 0 only if all caches equal the database and no unit of stock was\n" +
			"oversold or lost. Stop it with Ctrl-C.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			quietLibraries()
			return runDemo(c.Context(), o, c.OutOrStdout())
		},
	}
	c.Flags().DurationVar(&o.length, "for", 0, "how long the load lasts (default until Ctrl-C)")
	c.Flags().StringSliceVar(&o.kafka, "kafka", nil, "brokers to use instead of the in-process one")
	c.Flags().IntVar(&o.commits, "commits", 300, "shop changes per second")
	c.Flags().Int64Var(&o.stock, "stock", 20_000, "units on sale")
	return c
}

type demoOptions struct {
	length  time.Duration
	kafka   []string
	commits int
	stock   int64
}

// settleTime is how long the demo waits, at the end, for the pipeline to empty
// and for open holds to expire.
const settleTime = 30 * time.Second

// runDemo returns nil only if the verdict is yes.
func runDemo(ctx context.Context, o demoOptions, out io.Writer) (err error) {
	began := time.Now()
	e, err := startDemoServers(ctx, o)
	if err != nil {
		return err
	}
	// Whatever happens, no process and no file stays behind.
	defer func() { err = errors.Join(err, e.stop()) }()
	fmt.Fprintf(out, "servers up after %.1f s: %s %s, Redis, %s; files in %s until the end\n",
		time.Since(began).Seconds(), e.sql.Flavor, e.sql.Version, e.kafkaName, e.dir)

	s := newShop(e, out, o.stock, o.commits)
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.seed(ctx); err != nil {
		return fmt.Errorf("seed the shop: %w", err)
	}
	if err := s.open(ctx); err != nil {
		return err
	}

	// The parts outlive the load: at Ctrl-C the load ends, the pipeline settles and
	// the verdict is taken on the living system.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	g, parts := errgroup.WithContext(parts)
	g.Go(func() error { return s.daemon.run(parts) })
	g.Go(func() error { return s.stock.run(parts) })
	if err := errors.Join(s.caughtUp(ctx), s.openNodes(ctx)); err != nil {
		stopParts()
		return errors.Join(err, g.Wait())
	}
	fmt.Fprintf(out, "daemon, 3 web nodes and stock API are running after %.1f s: daemon http://%s/metrics, stock http://%s\n\n%s\n",
		time.Since(began).Seconds(), s.daemonAddr, s.stockAddr, liveHeader)

	load, stopLoad := context.WithCancel(ctx)
	if o.length > 0 {
		load, stopLoad = context.WithTimeout(ctx, o.length)
	}
	context.AfterFunc(parts, stopLoad) // a part that fails ends the load
	s.runLoad(load, o.length)
	stopLoad()

	verdict := s.judge(parts)
	stopParts()
	if err := g.Wait(); err != nil {
		return fmt.Errorf("a part of the demo failed: %w", err)
	}
	return verdict.print(out)
}

// inTempFolder makes the folder that all of the demo's files are in.
func inTempFolder() (string, error) {
	dir, err := os.MkdirTemp("", "rowtide-demo-*")
	if err != nil {
		return "", err
	}
	// The database server runs as an unprivileged user and must get in.
	return dir, os.Chmod(dir, 0o755)
}
