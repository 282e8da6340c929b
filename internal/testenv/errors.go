package testenv

import (
	"errors"
	"fmt"
)

// ErrNotInstalled means that a server's program is not on this machine. The
// caller cannot repair that; the message names what the user has to run.
var ErrNotInstalled = errors.New("not installed")

func notInstalled(name string) error {
	return fmt.Errorf("%s is %w: run `make setup`", name, ErrNotInstalled)
}
