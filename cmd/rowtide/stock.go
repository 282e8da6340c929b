package main

import "github.com/spf13/cobra"

func newStock() *cobra.Command { return &cobra.Command{Use: "stock"} }
