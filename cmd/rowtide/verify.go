package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
)

// report is what verify prints per module.
type report struct {
	Module      string       `json:"module"`
	Keys        int          `json:"keys"`
	Differences []difference `json:"differences"`
}

func newVerify() *cobra.Command {
	var path string
	var only []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare every key of Redis with the source, both ways; exit code 4 when they differ",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			quietLibraries()
			d := newDaemon(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
			defer func() { err = errors.Join(err, d.close()) }()
			if err := d.preflight(c.Context()); err != nil {
				return err
			}
			if err := awaitDaemon(c, d); err != nil {
				return err
			}
			v := &verifier{db: d.source.Reader(), rdb: d.rdb, prefix: cfg.Redis.Prefix}
			var reports []report
			total := 0
			for _, m := range d.modules {
				if len(only) > 0 && !slices.Contains(only, m.Config().Name) {
					continue
				}
				keys, diffs, err := v.module(c.Context(), m)
				if err != nil {
					return fmt.Errorf("verify module %s: %w", m.Config().Name, err)
				}
				total += len(diffs)
				reports = append(reports, report{m.Config().Name, keys, diffs})
			}
			if err := printReports(c, reports, total, asJSON); err != nil {
				return err
			}
			if total > 0 {
				return fmt.Errorf("%w: %d differences", errDiffers, total)
			}
			return nil
		},
	}
	configFlag(c, &path)
	c.Flags().StringSliceVarP(&only, "module", "m", nil, "modules to check (default all)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// How long verify waits for a daemon that is behind, counted from the last step it
// was seen to take.
const (
	awaitPatience = 10 * time.Second
	awaitPoll     = 200 * time.Millisecond
)

// awaitDaemon waits until the daemon has applied what is in the log now: what it
// has not come to yet is lag, not a difference.
func awaitDaemon(c *cobra.Command, d *daemon) error {
	store, err := d.checkpointStore()
	if err != nil {
		return err
	}
	head, err := d.source.Head(c.Context())
	if err != nil {
		return err
	}
	var at rowtide.Position
	for since := time.Now(); time.Since(since) < awaitPatience; pause(c.Context(), awaitPoll) {
		ckpt, err := store.Load(c.Context())
		if err != nil {
			return err
		}
		if ckpt == nil {
			continue
		}
		if reached(ckpt.Position(), head) {
			return nil
		}
		if ckpt.Position() != at {
			at, since = ckpt.Position(), time.Now()
		}
	}
	_, err = fmt.Fprintf(c.ErrOrStderr(), "the daemon stands at %s, the log ends at %s: what lies between shows as differences\n", at, head)
	return err
}

// reached reports whether position a is not before b.
func reached(a, b rowtide.Position) bool {
	fileA, errA := rowtide.FileNumber(a.File)
	fileB, errB := rowtide.FileNumber(b.File)
	return errA == nil && errB == nil && (fileA > fileB || fileA == fileB && a.Pos >= b.Pos)
}

// shownDifferences is how many a person is shown per module; --json has all.
const shownDifferences = 5

func printReports(c *cobra.Command, reports []report, total int, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(reports)
	}
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "module\tkeys\tdifferences")
	for _, r := range reports {
		fmt.Fprintf(t, "%s\t%d\t%d\n", r.Module, r.Keys, len(r.Differences))
		for _, d := range r.Differences[:min(len(r.Differences), shownDifferences)] {
			fmt.Fprintf(t, "  %s %s\n    redis:  %.200s\n    source: %.200s\n", d.Kind, d.ID, d.Redis, d.Source)
		}
	}
	fmt.Fprintf(t, "%d differences\n", total)
	return t.Flush()
}
