// Command rowtide keeps Redis and the local caches of web nodes right by
// following a MySQL or MariaDB server's binary log. Run it without arguments to
// see its subcommands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A first signal asks for an orderly end; a second one, once the handler is
	// gone, kills at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := newRoot().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rowtide: "+err.Error())
	}
	os.Exit(exitCode(err))
}
