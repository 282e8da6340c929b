package testenv

import (
	"context"
	"os"
	"os/exec"
	"strings"
)

// debianPython is the one that Debian's packages, such as python3-redis, are for.
const debianPython = "/usr/bin/python3"

// Python returns a Python 3 that can import the given packages. Without one the
// test is skipped, and fails in a strict run.
func Python(t TB, packages ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	code := "import sys, " + strings.Join(append(packages, "os"), ", ")
	for _, python := range []string{debianPython, "python3"} {
		if exec.CommandContext(ctx, python, "-c", code).Run() == nil {
			return python
		}
	}
	if os.Getenv(EnvStrict) == "1" {
		t.Fatalf("python3 with %v is not installed and %s=1 forbids to go without: run make setup", packages, EnvStrict)
	}
	t.Skipf("python3 with %v is not installed: run make setup", packages)
	return ""
}
