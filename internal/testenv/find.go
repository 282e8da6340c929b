package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
)

// find returns the path of a program: on PATH, or in the folders where Debian
// keeps servers, which are not on every user's PATH.
func find(program string) (string, bool) {
	if path, err := exec.LookPath(program); err == nil {
		return path, true
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}
