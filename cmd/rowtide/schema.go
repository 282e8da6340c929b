package main

import (
	"github.com/spf13/cobra"

	"github.com/rowtide/rowtide/config"
)

func newSchema() *cobra.Command {
	var stock bool
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the config file, for editors",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text := config.Schema()
			if stock {
				text = config.StockSchema()
			}
			_, err := c.OutOrStdout().Write(text)
			return err
		},
	}
	c.Flags().BoolVar(&stock, "stock", false, "of the stock API's file instead")
	return c
}
