//go:build !linux

package testenv

import "syscall"

// Outside Linux this package compiles, so that the rest of the module can be
// worked on anywhere, but a server is not tied to our life and cannot be paused.
const (
	sigPause  = syscall.Signal(-1)
	sigResume = syscall.Signal(-1)
)

type credential struct{ drop bool }

func unprivileged(...string) credential { return credential{} }

func (credential) own(string) error { return nil }

func sysProcAttr(credential) *syscall.SysProcAttr { return nil }
