package binlog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/rowtide/rowtide"
)

// Resume decides where the stream starts, from the stored checkpoint or, if
// there is none, from Config.StartAt. It must follow [Source.Preflight] and
// writes nothing. The error wraps rowtide.ErrPositionLost when the server cannot
// continue from the checkpoint without a gap.
func (s *Source) Resume(ctx context.Context, store Store) (*Progress, error) {
	c, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	if c == nil {
		c, err = s.firstStart(ctx)
	} else {
		err = s.continueFrom(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	s.start = *c
	if s.useGTID {
		if s.received, err = parseGTIDSet(s.server.Flavor, c.GTIDSet); err != nil {
			return nil, err
		}
	}
	flavor := ""
	if s.useGTID {
		flavor = s.server.Flavor
	} else {
		// Left beside a new file position, an old set would send all since.
		c.GTIDSet = ""
	}
	if s.progress, err = NewProgress(store, flavor, *c); err != nil {
		return nil, err
	}
	s.progress.log, s.progress.obs = s.log, s.obs
	return s.progress, nil
}

// firstStart makes a checkpoint for a source that has never been read.
func (s *Source) firstStart(ctx context.Context) (*Checkpoint, error) {
	c := &Checkpoint{Source: s.server.ID, Epoch: 1, SavedAt: time.Now().UTC()}
	var err error
	switch s.cfg.StartAt {
	case StartEarliest:
		var logs []binlogFile
		if logs, err = binaryLogs(ctx, s.db); err != nil {
			return nil, err
		}
		c.File, c.Pos = logs[0].name, 4 // past the four magic bytes
		c.GTIDSet, err = s.gtidsAt(ctx, c.Position())
	case StartLatest:
		c.File, c.Pos, c.GTIDSet, err = s.server.head(ctx, s.db)
	default:
		var p rowtide.Position
		if p, err = rowtide.ParsePosition(s.cfg.StartAt); err == nil {
			c.File, c.Pos = p.File, p.Pos
			c.GTIDSet, err = s.gtidsAt(ctx, p)
		}
	}
	if err != nil {
		return nil, err
	}
	s.useGTID = s.server.GTID && s.cfg.Mode != ModeFile
	// MySQL cannot tell the set at an arbitrary place, and a set with a hole would
	// make the server send all of history.
	if s.server.Flavor == mysql.MySQLFlavor && s.cfg.StartAt != StartEarliest && s.cfg.StartAt != StartLatest {
		s.useGTID = false
	}
	if !s.useGTID {
		c.GTIDSet = ""
	}
	s.fresh = true
	return c, nil
}

// Head is the end of the server's log now. It must follow [Source.Preflight].
func (s *Source) Head(ctx context.Context) (rowtide.Position, error) {
	file, pos, _, err := s.server.head(ctx, s.db)
	return rowtide.Position{File: file, Pos: pos}, err
}

// gtidsAt is the set of transactions before p, as far as the server can tell.
func (s *Source) gtidsAt(ctx context.Context, p rowtide.Position) (string, error) {
	if !s.server.GTID {
		return "", nil
	}
	var set sql.NullString
	var err error
	if s.server.Flavor == mysql.MariaDBFlavor {
		err = s.db.QueryRowContext(ctx, "SELECT BINLOG_GTID_POS(?, ?)", p.File, p.Pos).Scan(&set)
	} else {
		err = s.db.QueryRowContext(ctx, "SELECT @@global.gtid_purged").Scan(&set)
	}
	if err != nil {
		return "", fmt.Errorf("ask the GTIDs before %s: %w", p, err)
	}
	return cleanGTIDs(set.String), nil
}

// cleanGTIDs removes the line breaks that MySQL puts into long sets.
func cleanGTIDs(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] != '\n' && s[i] != ' ' {
			out = append(out, s[i])
		}
	}
	return string(out)
}

// continueFrom proves that the server can go on from c without a gap.
func (s *Source) continueFrom(ctx context.Context, c *Checkpoint) error {
	s.useGTID = c.GTIDSet != "" && s.server.GTID && s.cfg.Mode != ModeFile
	if c.Source != s.server.ID {
		if !s.useGTID {
			return fmt.Errorf("%w: the checkpoint is of server %s, %s is %s, and without GTIDs positions of one mean nothing on the other; "+
				"remove the checkpoint to start anew", rowtide.ErrPositionLost, c.Source, s.cfg.Addr, s.server.ID)
		}
		// A failover. The new server's file numbers are unrelated to the old one's,
		// so a new epoch makes its changes newer than all before.
		s.log.Warn("source changed, starting a new epoch", "from", c.Source, "to", s.server.ID, "epoch", c.Epoch+1)
		c.Source, c.Epoch = s.server.ID, c.Epoch+1
	}
	if !s.useGTID {
		return s.checkFile(ctx, c)
	}
	if err := s.checkNumbering(ctx, c); err != nil {
		return err
	}
	if s.server.Flavor == mysql.MySQLFlavor {
		return s.checkGTIDs(ctx, c)
	}
	return nil // MariaDB itself refuses a position it cannot serve, with error 1236
}

// checkNumbering notices a log that was begun anew under the same identity (a
// reset, another --log-bin, a restored server): the GTIDs fit, but its positions
// would order below what is stored, and every change would look old.
func (s *Source) checkNumbering(ctx context.Context, c *Checkpoint) error {
	file, pos, _, err := s.server.head(ctx, s.db)
	if err != nil {
		return err
	}
	now, err := rowtide.FileNumber(file)
	if err != nil {
		return err
	}
	then, err := rowtide.FileNumber(c.File)
	if err != nil {
		return err
	}
	if c.Source == s.server.ID && (now < then || now == then && pos < c.Pos) {
		s.log.Warn("the log was begun anew, starting a new epoch", "checkpoint", c.Position().String(), "head", fmt.Sprintf("%s:%d", file, pos), "epoch", c.Epoch+1)
		c.Epoch++
	}
	return nil
}

func (s *Source) checkFile(ctx context.Context, c *Checkpoint) error {
	logs, err := binaryLogs(ctx, s.db)
	if err != nil {
		return err
	}
	for _, f := range logs {
		if f.name == c.File && c.Pos <= f.size {
			return nil
		}
	}
	return fmt.Errorf("%w: checkpoint %s, the server has %s to %s", rowtide.ErrPositionLost, c.Position(), logs[0].name, logs[len(logs)-1].name)
}

func (s *Source) checkGTIDs(ctx context.Context, c *Checkpoint) error {
	var missing, ahead sql.NullString
	err := s.db.QueryRowContext(ctx, "SELECT GTID_SUBTRACT(@@global.gtid_purged, ?), GTID_SUBTRACT(?, @@global.gtid_executed)", c.GTIDSet, c.GTIDSet).Scan(&missing, &ahead)
	if err != nil {
		return fmt.Errorf("compare GTID sets: %w", err)
	}
	if missing.String != "" {
		return fmt.Errorf("%w: the server purged %s, which the checkpoint has not seen", rowtide.ErrPositionLost, cleanGTIDs(missing.String))
	}
	if ahead.String != "" {
		return fmt.Errorf("%w: the checkpoint holds %s, which %s never executed: it was reset, restored from a backup, or is another server",
			rowtide.ErrPositionLost, cleanGTIDs(ahead.String), s.cfg.Addr)
	}
	return nil
}
