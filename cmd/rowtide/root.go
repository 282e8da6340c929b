package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/config"
)

// Exit codes, part of the command line's contract.
const (
	exitClean        = 0
	exitRuntime      = 1
	exitConfig       = 2
	exitPositionLost = 3
	exitDiffers      = 4
)

// errDiffers: verify found differences.
var errDiffers = errors.New("redis and the source differ")

// usageError is a command line that makes no sense; it exits like a bad config.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var cfg *config.Error
	var usage *usageError
	switch {
	case err == nil:
		return exitClean
	case errors.As(err, &cfg), errors.As(err, &usage):
		return exitConfig
	case errors.Is(err, rowtide.ErrPositionLost):
		return exitPositionLost
	case errors.Is(err, errDiffers), errors.Is(err, errNotThere):
		return exitDiffers
	}
	return exitRuntime
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "rowtide",
		Short: "Keeps Redis and local caches right by following a MySQL or MariaDB binary log",
		// Errors are printed once, by main; usage only when asked for.
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newRun(), newCheck(), newSchema(), newDLQ(reread), newVerify(), newBackfill(), newGet(), newStatus(), newStock(), newNode(), newDemo(), newVersion())
	return root
}

// noArgs refuses words that are no flags, as a fault of the command line.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasParent() {
		return &usageError{fmt.Errorf("%s takes no argument such as %q", c.CommandPath(), args[0])}
	}
	return &usageError{fmt.Errorf("unknown command %q; run rowtide --help", args[0])}
}

// configFlag adds -c, which every command that reads a config has.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "rowtide.yaml", "config file")
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and exit",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), version())
			return err
		},
	}
}

// release is set by the build: -ldflags "-X main.release=v1.2.3".
var release = "development build"

func version() string {
	return "rowtide " + release + " (" + runtime.Version() + ")"
}

func newLogger(w io.Writer, l config.Log) *slog.Logger {
	var level slog.Level
	// The level's name has been validated.
	_ = level.UnmarshalText([]byte(l.Level))
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
