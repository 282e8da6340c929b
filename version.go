package rowtide

import (
	"fmt"
	"math"
)

// Version orders the states of one key. It is made from the log, never from a
// clock: epoch (12 bits), binlog file number (20 bits), end position of the
// transaction (32 bits). Any daemon that replays the same transaction computes
// the same number, so replay and a second daemon are harmless. Zero means "no
// version" and is older than everything.
type Version uint64

// The largest values that fit the three parts of a Version.
const (
	MaxEpoch      = 1<<12 - 1
	MaxFileNumber = 1<<20 - 1
)

// NewVersion joins the three parts. A position past 4 GiB saturates: the server
// rotates right after the transaction that crossed max_binlog_size (at most
// 1 GiB), so at most one transaction of a file can end there and order is kept.
// An epoch or file number that does not fit is an error, since wrapping around
// would make new states look old.
func NewVersion(epoch, file uint32, pos uint64) (Version, error) {
	if epoch > MaxEpoch {
		return 0, fmt.Errorf("make version: epoch %d is above %d", epoch, MaxEpoch)
	}
	if file > MaxFileNumber {
		return 0, fmt.Errorf("make version: binlog file number %d is above %d; start a new epoch after RESET BINARY LOGS", file, MaxFileNumber)
	}
	return Version(uint64(epoch)<<52 | uint64(file)<<32 | min(pos, math.MaxUint32)), nil
}

// Epoch is the lineage of the log; a later lineage beats every position of an
// earlier one.
func (v Version) Epoch() uint32 { return uint32(v >> 52) }

// File is the number of the binlog file.
func (v Version) File() uint32 { return uint32(v>>32) & MaxFileNumber }

// Pos is the end position of the transaction within the file.
func (v Version) Pos() uint32 { return uint32(v) }

// String is "epoch/file/pos", the form that logs and `rowtide get` print.
func (v Version) String() string {
	return fmt.Sprintf("%d/%d/%d", v.Epoch(), v.File(), v.Pos())
}
