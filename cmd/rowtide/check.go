package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide/config"
)

func newCheck() *cobra.Command {
	var path string
	var offline bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a config and, unless --offline, every server it names; writes nothing",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if !offline {
				quietLibraries()
				d := newDaemon(cfg, newLogger(c.ErrOrStderr(), cfg.Log))
				defer func() { err = errors.Join(err, d.close()) }()
				if err := config.Locate(path, d.preflight(c.Context())); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good: %d modules\n", path, len(cfg.Modules))
			return err
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&offline, "offline", false, "check the file only")
	return c
}
