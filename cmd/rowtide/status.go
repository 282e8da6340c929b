package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide/config"
)

func newStatus() *cobra.Command {
	var addr string
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Ask a running daemon how it is",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, "http://"+addr+"/status", nil)
			if err != nil {
				return &usageError{fmt.Errorf("--addr %q: %w", addr, err)}
			}
			client := &http.Client{Timeout: 5 * time.Second}
			resp, err := client.Do(req)
			if err != nil {
				return fmt.Errorf("no daemon answers at %s (http.listen of its config): %w", addr, err)
			}
			defer resp.Body.Close()
			if asJSON {
				_, err = io.Copy(c.OutOrStdout(), resp.Body)
				return err
			}
			var s status
			if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
				return fmt.Errorf("%s is not a rowtide daemon: %w", addr, err)
			}
			return s.print(c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&addr, "addr", config.DefaultListen, "the daemon's http.listen")
	c.Flags().BoolVar(&asJSON, "json", false, "print the raw JSON")
	return c
}

func (s *status) print(w io.Writer) error {
	state := "ready"
	if !s.Ready {
		state = "NOT READY: " + strings.Join(s.Problems, "; ")
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "state\t%s\n", state)
	fmt.Fprintf(t, "source\t%s (%s)\n", s.Source, s.Server)
	fmt.Fprintf(t, "checkpoint\t%s, epoch %d, saved %s\n", s.Position, s.Epoch, s.SavedAt)
	fmt.Fprintf(t, "lag of last flush\t%.3f s\n", s.LagSeconds)
	fmt.Fprintf(t, "transactions\t%d, with %d changes of watched tables\n", s.Transactions, s.Changes)
	fmt.Fprintf(t, "entries\t%d written, %d superseded\n", s.Written, s.Superseded)
	fmt.Fprintf(t, "modules\t%s\n", strings.Join(s.Modules, ", "))
	if s.Nodes != nil {
		fmt.Fprintf(t, "web nodes\t%d report, %d of them degraded\n", *s.Nodes, *s.NodesDegraded)
	}
	fmt.Fprintf(t, "up\t%s\n", (time.Duration(s.UpSeconds) * time.Second).String())
	return t.Flush()
}
