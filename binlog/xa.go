package binlog

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/rowtide/rowtide"
)

// xa handles the control statements of a group that is prepared first and
// committed, or not, later.
func (a *assembler) xa(ctx context.Context, h *replication.EventHeader, q []byte) error {
	words := strings.SplitN(string(q), " ", 3)
	if len(words) < 3 {
		return fmt.Errorf("XA statement %q at %s:%d: %w", q, a.file, h.LogPos, ErrUnreadable)
	}
	xid := strings.TrimSpace(words[2])
	switch strings.ToUpper(words[1]) {
	case "START", "BEGIN":
		a.group, a.xid = true, xid
		return nil
	case "END":
		// MariaDB writes no XA START: its GTID event stands for it.
		a.xid = xid
		return nil
	case "COMMIT":
		xid = strings.TrimSpace(strings.TrimSuffix(xid, "ONE PHASE"))
		changes, ok := a.prepared[xid]
		if !ok {
			return fmt.Errorf("XA COMMIT %s at %s:%d without its PREPARE: %w; start at or before the PREPARE", xid, a.file, h.LogPos, rowtide.ErrPositionLost)
		}
		delete(a.prepared, xid)
		a.tx.Changes = append(a.tx.Changes[:0], changes...)
		return a.commit(ctx, h)
	case "ROLLBACK":
		delete(a.prepared, xid)
		a.tx.Changes = a.tx.Changes[:0]
		return a.commit(ctx, h)
	}
	return fmt.Errorf("XA statement %q at %s:%d: %w", q, a.file, h.LogPos, ErrUnreadable)
}

// xaPrepare sets the group aside: its rows are not committed yet and may never
// be. The GTID of the PREPARE itself is executed all the same.
func (a *assembler) xaPrepare(ctx context.Context, h *replication.EventHeader) error {
	a.prepared[a.xid] = append([]rowtide.Change(nil), a.tx.Changes...)
	a.tx.Changes = a.tx.Changes[:0]
	return a.commit(ctx, h)
}
