package rowtide

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is a place between two transactions of a source's log.
type Position struct {
	// File is the binlog file's name, such as "binlog.000004".
	File string `json:"file"`
	// Pos is the byte offset just past the transaction.
	Pos uint64 `json:"pos"`
	// GTID is the transaction's own global id in the server's notation
	// ("uuid:n", "uuid:tag:n" or "domain-server-n"); empty when the source has
	// none. It is not a set: the checkpoint folds ids into one.
	GTID string `json:"gtid,omitempty"`
}

// String is "file:pos", with the GTID in brackets when there is one.
func (p Position) String() string {
	s := p.File + ":" + strconv.FormatUint(p.Pos, 10)
	if p.GTID != "" {
		s += " (" + p.GTID + ")"
	}
	return s
}

// ParsePosition reads "file:pos".
func ParsePosition(s string) (Position, error) {
	file, pos, ok := strings.Cut(s, ":")
	if !ok || file == "" {
		return Position{}, fmt.Errorf("parse position %q: want FILE:POS, such as binlog.000004:157", s)
	}
	n, err := strconv.ParseUint(pos, 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("parse position %q: %w", s, err)
	}
	return Position{File: file, Pos: n}, nil
}

// FileNumber is the number that a binlog file's name ends in ("binlog.000004"
// is 4), the part of a [Version] that orders files.
func FileNumber(name string) (uint32, error) {
	dot := strings.LastIndexByte(name, '.')
	n, err := strconv.ParseUint(name[dot+1:], 10, 32)
	if dot < 0 || err != nil {
		return 0, fmt.Errorf("binlog file %q has no number at its end", name)
	}
	return uint32(n), nil
}
