package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/IBM/sarama"
	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/publisher"
)

// rereader asks the daemon to read keys of a module from the source again. It
// returns once the request is kept, not once it is fulfilled.
type rereader func(ctx context.Context, cfg config.Config, module string, keys []string) error

// rereadBatch is how many keys one request names.
const rereadBatch = 200

// letterChoice says which letters a command is for.
type letterChoice struct {
	config string
	module string
	all    bool
	ids    []string
}

func newDLQ(reread rereader) *cobra.Command {
	c := &cobra.Command{
		Use:   "dlq",
		Short: "Look at changes that were set aside, and deal with them",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newDLQList(), newDLQRetry(reread), newDLQDrop())
	return c
}

func newDLQList() *cobra.Command {
	var choice letterChoice
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the letters, oldest first",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			choice.all = true
			return choice.with(func(cfg config.Config, client sarama.Client) error {
				return listLetters(c.Context(), c.OutOrStdout(), cfg, client, choice.wants, asJSON)
			})
		},
	}
	configFlag(c, &choice.config)
	c.Flags().StringVar(&choice.module, "module", "", "only letters of this module")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per line, with the row")
	return c
}

func newDLQRetry(reread rereader) *cobra.Command {
	var choice letterChoice
	c := &cobra.Command{
		Use:   "retry ID... | --all",
		Short: "Have the daemon read the letters' keys again, and remove the letters",
		RunE: func(c *cobra.Command, args []string) error {
			return choice.resolve(c, args, publisher.Retried, func(cfg config.Config, ls []rowtide.DeadLetter) ([]rowtide.DeadLetter, error) {
				return retryLetters(c.Context(), cfg, ls, reread)
			})
		},
	}
	choice.flags(c)
	return c
}

func newDLQDrop() *cobra.Command {
	var choice letterChoice
	c := &cobra.Command{
		Use:   "drop ID... | --all",
		Short: "Remove letters",
		RunE: func(c *cobra.Command, args []string) error {
			return choice.resolve(c, args, publisher.Dropped, func(_ config.Config, ls []rowtide.DeadLetter) ([]rowtide.DeadLetter, error) {
				return ls, nil
			})
		},
	}
	choice.flags(c)
	return c
}

func (o *letterChoice) flags(c *cobra.Command) {
	configFlag(c, &o.config)
	c.Flags().BoolVar(&o.all, "all", false, "all letters (of --module)")
	c.Flags().StringVar(&o.module, "module", "", "with --all: only letters of this module")
}

func (o *letterChoice) wants(l *rowtide.DeadLetter) bool {
	if o.all {
		return o.module == "" || o.module == l.Module
	}
	return slices.Contains(o.ids, l.ID())
}

// with loads the config and connects to Kafka.
func (o *letterChoice) with(fn func(config.Config, sarama.Client) error) error {
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	quietLibraries()
	client, err := dialDaemonKafka(cfg.Kafka)
	if err != nil {
		return err
	}
	return errors.Join(fn(cfg, client), client.Close())
}

// resolve finds the letters, deals with them, and removes those that act returns.
func (o *letterChoice) resolve(c *cobra.Command, ids []string, outcome string, act func(config.Config, []rowtide.DeadLetter) ([]rowtide.DeadLetter, error)) error {
	if o.ids = ids; o.all == (len(ids) > 0) || o.module != "" && !o.all {
		return &usageError{fmt.Errorf("%s wants either ids, as `rowtide dlq list` shows them, or --all (with --module: of a module)", c.CommandPath())}
	}
	return o.with(func(cfg config.Config, client sarama.Client) error {
		found, err := o.find(c.Context(), cfg, client)
		if err != nil {
			return err
		}
		done, actErr := act(cfg, found)
		if len(done) == 0 {
			return actErr
		}
		dlq, err := publisher.NewDeadLetters(cfg.Kafka, client, newLogger(c.ErrOrStderr(), cfg.Log))
		if err != nil {
			return errors.Join(actErr, err)
		}
		resolved := make([]string, len(done))
		for i, l := range done {
			resolved[i] = l.ID()
		}
		err = dlq.Resolve(c.Context(), outcome, resolved...)
		if err = errors.Join(err, dlq.Close()); err != nil {
			return errors.Join(actErr, err)
		}
		fmt.Fprintf(c.OutOrStdout(), "%d letters %s\n", len(done), outcome)
		return actErr
	})
}

// find returns the chosen letters, without their rows. An id that no letter has
// is an error, so that nothing is done by half because of a slip.
func (o *letterChoice) find(ctx context.Context, cfg config.Config, client sarama.Client) ([]rowtide.DeadLetter, error) {
	var found []rowtide.DeadLetter
	missing := map[string]bool{}
	for _, id := range o.ids {
		missing[id] = true
	}
	err := publisher.ScanDeadLetters(ctx, client, cfg.Kafka, func(l rowtide.DeadLetter) error {
		if o.wants(&l) {
			delete(missing, l.ID())
			found = append(found, l.WithoutRow())
		}
		return nil
	})
	for _, id := range o.ids {
		if missing[id] {
			err = errors.Join(err, fmt.Errorf("no letter %s in topic %s; `rowtide dlq list` shows what there is", id, cfg.Kafka.DLQTopic))
		}
	}
	return found, err
}

// retryLetters asks for the letters' keys and returns the letters that have been
// asked for.
func retryLetters(ctx context.Context, cfg config.Config, ls []rowtide.DeadLetter, reread rereader) ([]rowtide.DeadLetter, error) {
	byModule := map[string][]rowtide.DeadLetter{}
	var order []string
	var errs []error
	for _, l := range ls {
		if l.Key == "" {
			errs = append(errs, fmt.Errorf("letter %s has no key: run rowtide backfill for module %s, then rowtide dlq drop %s", l.ID(), l.Module, l.ID()))
			continue
		}
		if byModule[l.Module] == nil {
			order = append(order, l.Module)
		}
		byModule[l.Module] = append(byModule[l.Module], l)
	}
	var done []rowtide.DeadLetter
	for _, module := range order {
		for batch := range slices.Chunk(byModule[module], rereadBatch) {
			var keys []string
			for _, l := range batch {
				if !slices.Contains(keys, l.Key) {
					keys = append(keys, l.Key)
				}
			}
			if err := reread(ctx, cfg, module, keys); err != nil {
				return done, errors.Join(append(errs, fmt.Errorf("retry letters of module %s: %w", module, err))...)
			}
			done = append(done, batch...)
		}
	}
	return done, errors.Join(errs...)
}

// listLetters prints a table, or JSON as it stands in the topic.
func listLetters(ctx context.Context, w io.Writer, cfg config.Config, client sarama.Client, wants func(*rowtide.DeadLetter) bool, asJSON bool) error {
	const page = 100 // the table is aligned in pages, so that any number can be listed
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	n := 0
	err := publisher.ScanDeadLetters(ctx, client, cfg.Kafka, func(l rowtide.DeadLetter) error {
		if !wants(&l) {
			return nil
		}
		n++
		if asJSON {
			_, err := fmt.Fprintf(w, "%s\n", l.AppendDeadLetter(nil))
			return err
		}
		if n%page == 1 {
			if err := t.Flush(); err != nil {
				return err
			}
			fmt.Fprintln(t, "ID\tSET ASIDE\tMODULE\tKEY\tOP\tTABLE\tPOSITION\tREASON")
		}
		op := ""
		if l.Op != 0 {
			op = l.Op.String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.ID(), l.At.Format(time.RFC3339), l.Module, oneLine(l.Key), op, l.Table, l.Position, oneLine(l.Reason))
		return nil
	})
	if n == 0 && err == nil && !asJSON {
		fmt.Fprintf(t, "no dead letters in topic %s\n", cfg.Kafka.DLQTopic)
	}
	return errors.Join(t.Flush(), err)
}

// oneLine keeps a text within a line of a table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}
