package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/config"
)

// Defaults of verify.
const (
	defaultMaxDiffs = 1000
	// keptBytes of a value stand in a difference, so that what is kept is bounded.
	keptBytes = 1 << 10
)

// moduleReport is what verify found in one module.
type moduleReport struct {
	Module string `json:"module"`
	// Keys were compared because the database has them; Scanned were looked at
	// because Redis has them.
	Keys    int `json:"keys"`
	Scanned int `json:"scanned"`

	Missing int `json:"missing"`
	Stale   int `json:"stale"`
	Extra   int `json:"extra"`
	Wrong   int `json:"wrong"`

	Repaired int `json:"repaired"`
	// Unsettled changed at every look, so that nothing can be said of them.
	Unsettled int `json:"unsettled"`
	// Tolerated counts missing keys that --allow-missing does not take for
	// differences.
	Tolerated int `json:"tolerated"`

	// Differences are the first ones.
	Differences []difference `json:"differences"`
	kept        map[string]bool
}

// total is the number of differences.
func (r *moduleReport) total() int { return r.Missing + r.Stale + r.Extra + r.Wrong }

// note counts a difference and keeps it if there is room. A key that comes twice,
// which a scan or a table with several rows of a key can cause, counts once as
// long as it is kept.
func (r *moduleReport) note(d difference, most int) {
	if r.kept[d.ID] {
		return
	}
	switch d.Kind {
	case diffMissing:
		r.Missing++
	case diffStale:
		r.Stale++
	case diffExtra:
		r.Extra++
	default:
		r.Wrong++
	}
	if len(r.Differences) < most {
		if r.kept == nil {
			r.kept = map[string]bool{}
		}
		r.kept[d.ID] = true
		r.Differences = append(r.Differences, d)
	}
}

// verifyReport is the whole of what verify prints with --json.
type verifyReport struct {
	Keys        int             `json:"keys"`
	Differences int             `json:"differences"`
	Repaired    int             `json:"repaired"`
	Modules     []*moduleReport `json:"modules"`
}

// verifyFlags are the command's.
type verifyFlags struct {
	path     string
	only     []string
	json     bool
	repair   bool
	mayMiss  bool
	rate     int
	maxDiffs int
}

func newVerify() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare every key of Redis with the source, both ways; exit code 4 when they differ",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	configFlag(c, &f.path)
	c.Flags().StringSliceVarP(&f.only, "module", "m", nil, "modules to check (default all)")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object at the end")
	c.Flags().BoolVar(&f.repair, "repair", false, "overwrite what differs with what the database says; needs the daemon running")
	c.Flags().BoolVar(&f.mayMiss, "allow-missing", false, "keys that are missing in Redis are counted, but are no differences")
	c.Flags().IntVar(&f.rate, "rate", 0, "at most so many keys a second (default no limit)")
	c.Flags().IntVar(&f.maxDiffs, "max-diffs", defaultMaxDiffs, "differences to keep and print per module; all are counted")
	return c
}

func (f *verifyFlags) run(c *cobra.Command) (err error) {
	if f.rate < 0 || f.maxDiffs < 0 {
		return &usageError{errors.New("--rate and --max-diffs: want a number, not below zero")}
	}
	cfg, err := config.Load(f.path)
	if err != nil {
		return err
	}
	if err := knownModules(cfg.Modules, f.only); err != nil {
		return err
	}
	quietLibraries()
	d := newDaemon(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.preflight(c.Context()); err != nil {
		return err
	}
	if err := d.needDatabase("verify"); err != nil {
		return err
	}
	v, err := d.verifier()
	if err != nil {
		return err
	}
	if closeRepair := f.apply(v, d, c); closeRepair != nil {
		defer func() { err = errors.Join(err, closeRepair()) }()
	}
	if err := v.behind.announce(c); err != nil {
		return err
	}
	all := verifyReport{Modules: []*moduleReport{}}
	for _, m := range d.modules {
		if len(f.only) > 0 && !slices.Contains(f.only, m.Config().Name) {
			continue
		}
		r, err := v.module(c.Context(), m)
		v.progress.end()
		if err != nil {
			return fmt.Errorf("verify module %s: %w", m.Config().Name, err)
		}
		all.Modules = append(all.Modules, r)
		all.Keys, all.Differences, all.Repaired = all.Keys+r.Keys, all.Differences+r.total(), all.Repaired+r.Repaired
	}
	if err := all.print(c, f.json); err != nil {
		return err
	}
	if all.Differences > 0 {
		return fmt.Errorf("%w: %d differences", errDiffers, all.Differences)
	}
	return nil
}

// apply makes the flags the verifier's; the result ends what a repair opened.
func (f *verifyFlags) apply(v *verifier, d *daemon, c *cobra.Command) func() error {
	v.maxDiffs, v.mayMiss, v.truncated = f.maxDiffs, f.mayMiss, keptBytes
	if f.rate > 0 {
		v.rate = rate.NewLimiter(rate.Limit(f.rate), min(f.rate, verifyBatch))
	}
	if !f.json {
		v.progress = newProgress(c.ErrOrStderr())
	}
	if !f.repair {
		return nil
	}
	v.repair = d.repairer()
	return func() error { return v.repair.close() }
}

// knownModules refuses names that the config does not have.
func knownModules(modules []aggregator.ModuleConfig, names []string) error {
	known := make([]string, len(modules))
	for i, m := range modules {
		known[i] = m.Name
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return &usageError{fmt.Errorf("there is no module %q; the config has %s", n, strings.Join(known, ", "))}
		}
	}
	return nil
}

// announce waits for the daemon: what it has not come to yet is lag, not a
// difference. It says so when the daemon does not follow.
func (p *pursuit) announce(c *cobra.Command) error {
	at, err := p.catchUp(c.Context())
	switch {
	case err != nil || at.reached:
	case p.head == nil:
		fmt.Fprintln(c.ErrOrStderr(), "how far the changes have been applied cannot be told with a feed: what is under way for longer than 2 s shows as differences")
	default:
		fmt.Fprintf(c.ErrOrStderr(), "the daemon stands at %s, the log ends at %s: what lies between shows as differences\n", at.at, at.head)
	}
	return err
}

// shownDifferences is how many a person is shown per module; --json has more.
const shownDifferences = 5

func (r *verifyReport) print(c *cobra.Command, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(r)
	}
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "module\tkeys\tin redis\tmissing\tstale\textra\twrong\trepaired\tunsettled")
	for _, m := range r.Modules {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", m.Module, m.Keys, m.Scanned, m.Missing, m.Stale, m.Extra, m.Wrong, m.Repaired, m.Unsettled)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	out := c.OutOrStdout()
	for _, m := range r.Modules {
		for _, d := range m.Differences[:min(len(m.Differences), shownDifferences)] {
			fmt.Fprintf(out, "%s %s %s\n  redis:  %.200s\n  source: %.200s\n", d.Module, d.Kind, d.ID, d.Redis, d.Source)
			if d.Unrepaired != "" {
				fmt.Fprintf(out, "  not repaired: %s\n", d.Unrepaired)
			}
		}
		if m.Tolerated > 0 {
			fmt.Fprintf(out, "%s: %d keys are missing, which is allowed\n", m.Module, m.Tolerated)
		}
	}
	_, err := fmt.Fprintf(out, "%d differences\n", r.Differences)
	return err
}
