package testenv

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	sigPause  = syscall.SIGSTOP
	sigResume = syscall.SIGCONT
)

// credential is the user a server runs as. The zero value is our own.
type credential struct {
	drop     bool
	uid, gid uint32
}

// unprivileged picks the user for a server that must reach the given paths.
// Root's servers run as nobody, for database servers refuse to run as root
// unless told to; but below a folder closed to others (root's home, a test's
// private temporary folder) nobody could not work, and the server keeps root.
func unprivileged(paths ...string) credential {
	if os.Geteuid() != 0 {
		return credential{}
	}
	for _, p := range paths {
		if !othersMayEnter(p) {
			return credential{}
		}
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return credential{}
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		return credential{}
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	if err != nil {
		return credential{}
	}
	return credential{drop: true, uid: uint32(uid), gid: uint32(gid)}
}

// othersMayEnter reports whether every folder above path is open to all users.
func othersMayEnter(path string) bool {
	const execByOthers = 0o001
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&execByOthers == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// own hands a folder and all below it to the user the server runs as.
func (c credential) own(dir string) error {
	if !c.drop {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(c.uid), int(c.gid))
	})
}

func sysProcAttr(as credential) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if as.drop {
		attr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
	return attr
}
