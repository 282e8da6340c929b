package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/config"
)

// backfillName is what the daemon's requests are kept under: as the checkpoint
// is, since both describe one Redis.
func backfillName(cfg config.Config) string { return cfg.Redis.Prefix + ":" + cfg.Name }

// moduleID is a module as requests name it: a new version is a new module.
func moduleID(name string, version uint16) string { return fmt.Sprintf("%s/%d", name, version) }

func idOf(m *aggregator.Module) string { return moduleID(m.Config().Name, m.Config().Version) }

// preflightBackfill checks what backfills by themselves and heartbeats need.
func (d *daemon) preflightBackfill(ctx context.Context) error {
	if d.feed != nil || d.cfg.Role == config.RoleApplier || !*d.cfg.Source.Backfill.Auto && d.cfg.Source.HeartbeatRow == 0 {
		return nil
	}
	return d.source.PreflightBackfill(ctx)
}

// openBackfill queues what is to be read by itself. A daemon that writes to Redis
// tells the nodes when a new key space is filled; a reader cannot know it.
func (d *daemon) openBackfill(ctx context.Context) error {
	if d.feed != nil {
		return nil
	}
	var targets []binlog.BackfillTarget
	for _, m := range d.modules {
		if table := m.Table(); table != "" {
			targets = append(targets, binlog.BackfillTarget{Module: idOf(m), Table: table, Again: d.nodes.filling(m)})
		}
	}
	d.filler = d.source.Backfiller(backfillName(d.cfg), targets)
	if d.nodes != nil {
		d.filler.OnFilled(d.nodes.filled)
	}
	return d.filler.Prepare(ctx)
}

// backfillCommand is one call of `rowtide backfill`.
type backfillCommand struct {
	path, where string
	keys        []string
	noWait      bool
	pause       bool
	resume      bool
	list        bool

	out      io.Writer
	modules  []*aggregator.Module // those asked for
	source   *binlog.Source
	requests *binlog.Backfills
}

func newBackfill() *cobra.Command {
	b := &backfillCommand{}
	c := &cobra.Command{
		Use:   "backfill [MODULE...]",
		Short: "Have the running daemon read the tables of modules (default all), and follow it",
		RunE: func(c *cobra.Command, args []string) error {
			return b.run(c, args)
		},
	}
	configFlag(c, &b.path)
	f := c.Flags()
	f.StringVar(&b.where, "where", "", "SQL condition on the module's table that narrows the rows")
	f.StringSliceVar(&b.keys, "keys", nil, "only these keys of the module")
	f.BoolVar(&b.noWait, "no-wait", false, "ask and return")
	f.BoolVar(&b.pause, "pause", false, "pause what is queued or running")
	f.BoolVar(&b.resume, "resume", false, "go on with what was paused")
	f.BoolVar(&b.list, "list", false, "list the requests and how far they are")
	return c
}

func (b *backfillCommand) run(c *cobra.Command, args []string) (err error) {
	given := 0
	for _, name := range []string{"where", "keys", "pause", "resume", "list"} {
		if c.Flags().Changed(name) {
			given++
		}
	}
	if given > 1 {
		return &usageError{errors.New("--where, --keys, --pause, --resume and --list exclude each other")}
	}
	cfg, err := config.Load(b.path)
	if err != nil {
		return err
	}
	b.out = c.OutOrStdout()
	quietLibraries()
	ctx := c.Context()
	if err := b.connect(ctx, cfg, args, newLogger(c.ErrOrStderr(), cfg.Log)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.source.Close()) }()
	switch {
	case b.list:
		return b.show(ctx)
	case b.pause:
		return b.each(ctx, "paused", b.requests.Pause)
	case b.resume:
		return b.each(ctx, "queued again", b.requests.Continue)
	}
	ids, err := b.ask(ctx)
	if err != nil || b.noWait {
		return err
	}
	return b.follow(ctx, ids, backfillName(cfg))
}

// connect finds the named modules and readies the source, which the caller closes.
func (b *backfillCommand) connect(ctx context.Context, cfg config.Config, names []string, log *slog.Logger) error {
	if cfg.Source.Kind != config.KindBinlog {
		return &usageError{errors.New("rowtide backfill puts the rows in order by the binary log, and this config's source is of kind kafka; take a new snapshot where the topics come from")}
	}
	if err := b.choose(cfg, names); err != nil {
		return err
	}
	b.source = binlog.New(cfg.Source.Config, nil, log, binlog.NopObserver{})
	needs, _ := needsOf(b.modules)
	err := b.source.Preflight(ctx, needs, nil)
	if err == nil {
		err = b.source.PreflightBackfill(ctx)
	}
	if err != nil {
		return errors.Join(err, b.source.Close())
	}
	b.requests = b.source.Backfills(backfillName(cfg))
	return nil
}

// reread has the daemon read keys of a module from the source again. It returns
// once the request is kept, not once it is fulfilled.
func reread(ctx context.Context, cfg config.Config, module string, keys []string) error {
	b := &backfillCommand{keys: keys, out: io.Discard}
	if err := b.connect(ctx, cfg, []string{module}, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	_, err := b.ask(ctx)
	return errors.Join(err, b.source.Close())
}

// choose finds the modules that the arguments name.
func (b *backfillCommand) choose(cfg config.Config, names []string) error {
	all, err := aggregator.Compile(cfg.Modules)
	if err != nil {
		return err
	}
	var known []string
	for _, m := range all {
		known = append(known, m.Config().Name)
		if len(names) == 0 && m.Table() != "" || slices.Contains(names, m.Config().Name) {
			b.modules = append(b.modules, m)
		}
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return &usageError{fmt.Errorf("no module is named %q; there are %s", n, strings.Join(known, ", "))}
		}
	}
	for _, m := range b.modules {
		if m.Table() == "" {
			return &usageError{fmt.Errorf("module %s has no table to read: give one of its watches a key instead of keys", m.Config().Name)}
		}
	}
	if (b.where != "" || len(b.keys) > 0) && len(b.modules) != 1 {
		return &usageError{errors.New("--where and --keys are about one module: name it")}
	}
	return nil
}

// ask queues one request per table and returns their ids.
func (b *backfillCommand) ask(ctx context.Context) ([]uint64, error) {
	var requests []binlog.BackfillRequest
	for _, m := range b.modules {
		r := binlog.BackfillRequest{Modules: []string{idOf(m)}, Table: m.Table(), Where: b.where}
		if len(b.keys) > 0 {
			var err error
			if r.Where, err = keysCondition(keyTemplate(m), b.keys); err != nil {
				return nil, &usageError{fmt.Errorf("module %s: %w", m.Config().Name, err)}
			}
			r.Few = true
		}
		if i := slices.IndexFunc(requests, func(o binlog.BackfillRequest) bool { return o.Table == r.Table }); i >= 0 {
			requests[i].Modules = append(requests[i].Modules, r.Modules...)
			continue
		}
		requests = append(requests, r)
	}
	for _, r := range requests {
		if r.Where == "" {
			continue
		}
		// The daemon would find the same fault, but later.
		if _, _, err := b.source.Reader().Query(ctx, "SELECT 1 FROM "+quoteTable(r.Table)+" WHERE ("+r.Where+"\n) AND FALSE"); err != nil {
			return nil, fmt.Errorf("--where: %w", err)
		}
	}
	if err := b.requests.Create(ctx); err != nil {
		return nil, err
	}
	var ids []uint64
	for _, r := range requests {
		id, err := b.requests.Add(ctx, r)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		fmt.Fprintf(b.out, "queued %d: table %s for %s\n", id, r.Table, strings.Join(r.Modules, ", "))
	}
	return ids, nil
}

func quoteTable(table string) string {
	schema, name, _ := strings.Cut(table, ".")
	quote := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	return quote(schema) + "." + quote(name)
}

// ours lists the requests that any of the chosen modules is part of.
func (b *backfillCommand) ours(ctx context.Context) ([]binlog.Backfill, error) {
	all, err := b.requests.List(ctx)
	return slices.DeleteFunc(all, func(f binlog.Backfill) bool {
		return !slices.ContainsFunc(b.modules, func(m *aggregator.Module) bool { return slices.Contains(f.Modules, idOf(m)) })
	}), err
}

// each does the same to all requests that are not over.
func (b *backfillCommand) each(ctx context.Context, what string, do func(context.Context, uint64) (bool, error)) error {
	requests, err := b.ours(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, r := range requests {
		if r.Status.Ended() {
			continue
		}
		done, err := do(ctx, r.ID)
		if err != nil {
			return err
		}
		if done {
			n++
			fmt.Fprintf(b.out, "%d: table %s is %s\n", r.ID, r.Table, what)
		}
	}
	if n == 0 {
		return errors.New("there is no such backfill; rowtide backfill --list shows them all")
	}
	return nil
}

func (b *backfillCommand) show(ctx context.Context) error {
	requests, err := b.ours(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(b.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTABLE\tMODULES\tSTATE\tROWS\tESTIMATED\tSINCE (UTC)\tREMARK")
	for _, r := range requests {
		remark := r.Err
		if r.Where != "" {
			remark = strings.TrimSpace(remark + " where " + r.Where)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%d\t%s\t%.200s\n", r.ID, r.Table, strings.Join(r.Modules, ","), r.Status, r.Rows, r.Estimated,
			r.UpdatedAt.Format(time.DateTime), remark)
	}
	return w.Flush()
}
