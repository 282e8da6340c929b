package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// startTries is how often a start is repeated when another process took the
// free port between our look and the server's own bind.
const startTries = 3

// launch prepares the folder and starts one kind of server in it. build is
// called with a server whose Addr and Dir are set, and fills in its spec.
func launch(ctx context.Context, name string, o Options, build func(ctx context.Context, s *Server) error) (*Server, error) {
	dir, own, err := makeDir(name, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	for try := 1; ; try++ {
		s, err := launchOnce(ctx, name, dir, o.Port, build)
		if err == nil {
			s.ownDir = own
			return s, nil
		}
		if o.Port == 0 && try < startTries && portTaken(err) {
			continue
		}
		if own {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
}

func launchOnce(ctx context.Context, name, dir string, port int, build func(context.Context, *Server) error) (*Server, error) {
	if port == 0 {
		var err error
		if port, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	s := &Server{Addr: loopback(port), Dir: dir, spec: spec{name: name}}
	s.spec.as = unprivileged(s.dataDir())
	if err := build(ctx, s); err != nil {
		return nil, err
	}
	if err := s.spec.as.own(s.dataDir()); err != nil {
		return nil, fmt.Errorf("hand over %s: %w", s.dataDir(), err)
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// portTaken recognises the four servers' words for EADDRINUSE, quoted from
// their logs in a failed start.
func portTaken(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "address already in use")
}

// makeDir returns an absolute folder that exists, and whether it is ours to
// remove.
func makeDir(name, dir string) (string, bool, error) {
	if dir == "" {
		dir, err := TempDir(name)
		return dir, true, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", false, err
	}
	return dir, false, os.MkdirAll(dir, 0o755)
}

// TempDir makes a temporary folder that servers running as another user can
// enter. The caller removes it.
func TempDir(name string) (string, error) {
	dir, err := os.MkdirTemp("", "rowtide-"+name+"-")
	if err != nil {
		return "", err
	}
	// MkdirTemp's 0700 would lock out a server that root starts as nobody.
	return dir, os.Chmod(dir, 0o755)
}

// tail returns at most the last n bytes of a file, or why it cannot.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
