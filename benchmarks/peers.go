package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rowtide/rowtide/internal/testenv"
)

// peers measures localsync beside other Go caches (package peers): all of it, or the
// parts that -peers names.
func (b *bench) peers(ctx context.Context) error {
	if b.measuredBefore() {
		return nil
	}
	bin := filepath.Join(filepath.Dir(b.bin), "peers")
	// A module of its own: what the peers need is nothing to the daemon.
	build := exec.CommandContext(ctx, "go", "build", "-C", "benchmarks/peers", "-o", bin, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the peers: %w", err)
	}
	// A JVM on the same cores is a good part of the tail; this shows the rest.
	fake, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		return err
	}
	defer fake.Close()
	args := []string{
		"-redis", b.redis.Addr, "-kafka", strings.Join(b.brokers, ","), "-fake-kafka", strings.Join(fake.Brokers(), ","),
		"-runs", strconv.Itoa(b.runs), "-seconds", strconv.Itoa(b.seconds),
	}
	if b.peersOf != "" {
		args = append(args, "-only", b.peersOf)
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
