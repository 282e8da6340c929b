package testenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// CacheDir returns the folder in which `make setup` keeps what it downloads and
// this package keeps freshly initialised data folders: $ROWTIDE_CACHE, else
// "rowtide" in the user's own cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("ROWTIDE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (ROWTIDE_CACHE can name one): %w", err)
	}
	return filepath.Join(dir, "rowtide"), nil
}

// cached returns the path of part/elem... in the cache folder if `make setup`
// has finished that part, and the version it wrote down.
func cached(part string, elem ...string) (path, version string, err error) {
	dir, err := CacheDir()
	if err != nil {
		return "", "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, part, "VERSION"))
	if err != nil {
		return "", "", err
	}
	return filepath.Join(append([]string{dir, part}, elem...)...), strings.TrimSpace(string(b)), nil
}

// Missing returns why `make setup` could not download a part ("mysql", "redis",
// "valkey" or "kafka"), or "" when it could or never tried.
func Missing(part string) string {
	dir, err := CacheDir()
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(dir, part, "MISSING"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// fromTemplate fills the empty folder dst with a data folder made by build.
// MySQL needs 2.5 s to make one; a copy of an earlier one takes a twentieth of
// that. identity names everything the result depends on; another identity
// makes another template.
func fromTemplate(dst, name, identity string, build func(dir string) error) error {
	cache, err := CacheDir()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(identity))
	template := filepath.Join(cache, "templates", name+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(template); errors.Is(err, os.ErrNotExist) {
		if err := makeTemplate(template, build); err != nil {
			return fmt.Errorf("make %s template: %w", name, err)
		}
	} else if err != nil {
		return err
	}
	return copyTree(dst, template)
}

// makeTemplate builds beside the final place and renames, so that a template is
// complete or absent. Of two processes that build at once the first one wins.
func makeTemplate(template string, build func(dir string) error) error {
	parent := filepath.Dir(template)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, filepath.Base(template)+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	data := filepath.Join(tmp, "data")
	if err := build(data); err != nil {
		return err
	}
	if err := os.Rename(data, template); err != nil {
		if _, statErr := os.Stat(template); statErr != nil {
			return err
		}
	}
	return nil
}

// copyTree copies folders and regular files; a database's data folder holds
// nothing else that matters (sockets and the like are left out).
func copyTree(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case d.Type().IsRegular():
			return copyFile(to, path)
		default:
			return nil
		}
	})
}

// copyFile leaves runs of zero bytes as holes: nine tenths of a fresh data
// folder are zeros, and writing them is what would take the time.
func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	if err := copySparse(out, in); err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", src, err), out.Close())
	}
	return out.Close()
}

func copySparse(out *os.File, in io.Reader) error {
	const block = 64 << 10
	buf, zeros := make([]byte, block), make([]byte, block)
	var size int64
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := out.WriteAt(buf[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}

// programIdentity tells one build of a program from the next without running it.
func programIdentity(bin string) (string, error) {
	info, err := os.Stat(bin)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %s", bin, info.Size(), info.ModTime()), nil
}
