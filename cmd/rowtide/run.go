package main

import (
	"errors"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide/config"
)

// gcPercent trades some 100 MB of memory under full load for a tenth of the
// CPU: what the daemon holds for long is small beside what passes through.
const gcPercent = 300

func newRun() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run",
		Short: "Follow the binary log: overwrite Redis, broadcast over Kafka",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			quietLibraries()
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			d := newDaemon(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
			defer func() { err = errors.Join(err, d.close()) }()
			if err := d.open(c.Context()); err != nil {
				return err
			}
			return d.run(c.Context())
		},
	}
	configFlag(c, &path)
	return c
}
