package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/backoff"
)

// gcPercent trades some 100 MB of memory under full load for a tenth of the
// CPU: what the daemon holds for long is small beside what passes through.
const gcPercent = 300

func newRun() *cobra.Command {
	var path, role string
	c := &cobra.Command{
		Use:   "run",
		Short: "Follow the binary log: overwrite Redis, broadcast over Kafka",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if role != "" { // as the environment does, so that a reload sees it too
				if err := os.Setenv("ROWTIDE_ROLE", role); err != nil {
					return err
				}
			}
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			quietLibraries()
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			log := newLogger(c.ErrOrStderr(), cfg.Log)
			var failed time.Time // when it last had to start again
			var reached rowtide.Version
			wait := backoff.New(100*time.Millisecond, 5*time.Second)
			for {
				err := runDaemon(c.Context(), path, cfg, log, &reached)
				var unopened *openError
				switch {
				case c.Context().Err() != nil && (deposed(err) || errors.Is(err, errStartAgain)):
					log.Warn("stopped; the next daemon reads again what this one had not written", "err", err)
					return nil
				case c.Context().Err() != nil:
					return err
				case errors.Is(err, errStartAgain):
					log.Warn("redis lost writes; they are read from the source again", "err", err)
					failed = time.Now()
					wait.Reset()
				case deposed(err):
					log.Warn("standing by again", "err", err)
					failed = time.Now()
					wait.Reset()
				case errors.As(err, &unopened) && time.Since(failed) < startAgainFor:
					log.Warn("cannot start again yet, trying", "err", err)
					_ = wait.Wait(c.Context()) // asked to stop, the next attempt ends at once
				default:
					return err
				}
				if now, err := config.Load(path); err == nil {
					cfg = now // a reload may have changed it since
				} else {
					log.Error("the config file is refused; the one of the start is used again", "err", err)
				}
			}
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&role, "role", "", "all, reader or applier (default: the config's role)")
	return c
}

// startAgainFor is how long a daemon that starts again goes on trying: right after a
// failover not all sentinels know the new primary.
const startAgainFor = time.Minute

// openError is why a daemon could not begin.
type openError struct{ error }

func (e *openError) Unwrap() error { return e.error }

// runDaemon is one life of a daemon, from connecting to closing. What it reads again
// before reached, where the life before came to, it does not show one by one.
func runDaemon(ctx context.Context, path string, cfg config.Config, log *slog.Logger, reached *rowtide.Version) (err error) {
	d := newDaemon(cfg, log)
	defer func() { err = errors.Join(err, d.close()) }()
	err = d.open(ctx)
	if errors.Is(err, errNeverElected) || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // asked to stop before anything began
	}
	if err = config.Locate(path, err); err != nil {
		return &openError{err}
	}
	if cfg.Role == config.RoleAll { // the halves of a divided daemon must not differ
		d.reload = newReloader(d, path)
	}
	if d.progress != nil && d.pipe != nil {
		d.pipe.hold(*reached)
		defer func() { *reached = d.progress.Reached() }()
	}
	return d.run(ctx)
}
