package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// Handler takes the transactions of a source, in order, one at a time.
type Handler interface {
	// HandleTx takes tx over. It may block: that is the back-pressure by which a
	// slow consumer slows the reading down. It must not keep tx or its Changes
	// slice after it returns; rows and tables it may keep. An error ends the
	// stream.
	HandleTx(ctx context.Context, tx *rowtide.Tx) error
}

// netWriteTimeout is how long the server keeps a reader that does not read: its
// default of 60 s would drop us in every longer outage behind us, only to be
// reconnected to.
const netWriteTimeout = "SET SESSION net_write_timeout=600"

// Source reads one server. Use: New, Preflight, Resume, Run, Close.
type Source struct {
	cfg     Config
	watched map[string]bool
	log     *slog.Logger
	obs     Observer

	db     *sql.DB
	server *Server
	events events

	start    Checkpoint
	fresh    bool // no checkpoint: begin by file, whatever the mode
	useGTID  bool
	received *gtidSet // handed over, not necessarily acknowledged
	pos      rowtide.Position
	progress *Progress
	marks    *marks // nil without a backfiller
	reading  reading
}

// New makes a source for the watched tables ("schema.table"). It does no I/O.
func New(cfg Config, watched []string, log *slog.Logger, obs Observer) *Source {
	s := &Source{cfg: cfg, watched: map[string]bool{}, log: log, obs: obs}
	for _, t := range watched {
		s.watched[t] = true
	}
	s.events.list.Store(&watched)
	return s
}

// Server is who the source is; nil before [Source.Preflight].
func (s *Source) Server() *Server { return s.server }

// Run hands transactions to h until ctx ends (nil), h fails, or the log cannot
// be followed. A broken connection is mended here, for as long as it takes, from
// the last transaction that h took. It must follow [Source.Resume].
func (s *Source) Run(ctx context.Context, h Handler) error {
	s.pos = s.start.Position()
	wait := backoff.New(100*time.Millisecond, 5*time.Second)
	for {
		took, err := s.stream(ctx, h)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop
		}
		if fatal(err) {
			return fmt.Errorf("follow %s from %s: %w", s.cfg.Addr, s.pos, err)
		}
		if took {
			s.fresh = false
			wait.Reset()
		}
		s.reading.disconnected(time.Now())
		s.obs.Disconnected(err)
		s.log.Warn("source connection lost, reconnecting", "addr", s.cfg.Addr, "position", s.pos.String(), "err", err)
		for {
			if wait.Wait(ctx) != nil {
				return nil //nolint:nilerr // asked to stop
			}
			if err = s.recheck(ctx); err == nil {
				break
			}
			if fatal(err) {
				return fmt.Errorf("follow %s from %s: %w", s.cfg.Addr, s.pos, err)
			}
		}
	}
}

// recheck asks who answers at the address now: after a failover it may be
// another server, whose file positions mean something else.
func (s *Source) recheck(ctx context.Context) error {
	// Pooled connections may still lead to the server of before.
	s.db.SetMaxIdleConns(0)
	defer s.db.SetMaxIdleConns(queryConns)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	server, err := describe(ctx, s.db)
	if err != nil {
		return err
	}
	before := s.server
	s.server = server
	c := s.start
	c.File, c.Pos, c.GTIDSet = s.pos.File, s.pos.Pos, ""
	if s.received != nil {
		c.GTIDSet = s.received.String()
	}
	if err := s.continueFrom(ctx, &c); err != nil {
		s.server = before
		if errors.Is(err, rowtide.ErrPositionLost) {
			return &streamError{err}
		}
		return err
	}
	if c.Epoch != s.start.Epoch {
		s.marks.abandon() // they may never come from this server
	}
	s.start.Source, s.start.Epoch = c.Source, c.Epoch
	s.progress.adopt(c.Source, c.Epoch)
	return nil
}

// streamError is an error that reconnecting cannot mend.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

func fatal(err error) bool {
	var s *streamError
	return errors.As(err, &s)
}

// stream runs one connection; took reports whether it delivered anything.
func (s *Source) stream(ctx context.Context, h Handler) (took bool, err error) {
	d := &dialer{timeout: s.cfg.ReadTimeout}
	link := &link{ctx: ctx, gate: &s.events.mu}
	link.asm = newAssembler(s.start.Epoch, s.server.charsets, s.watched, s.pos, func(ctx context.Context, tx *rowtide.Tx) error {
		reached := s.marks.pass(tx)
		s.reading.hand(time.Now())
		if err := h.HandleTx(ctx, tx); err != nil {
			return err
		}
		s.reading.handed(time.Now(), tx.Position)
		reached.tell()
		link.took.Store(true)
		s.obs.Received(tx)
		s.pos = rowtide.Position{File: tx.Position.File, Pos: tx.Position.Pos}
		if s.received != nil {
			return s.received.add(tx.Position.GTID)
		}
		return nil
	})
	link.asm.log, link.asm.opened, link.idle = s.log, s.reading.opens, s.reading.idle
	s.events.mu.Lock()
	s.events.asm = link.asm
	s.events.mu.Unlock()
	if s.marks != nil {
		link.asm.own = s.marks.tables
	}
	syncer, err := s.syncer(d, link)
	if err != nil {
		return false, &streamError{err}
	}
	// The library's Close opens a second connection to KILL the first by id, which
	// after a failover could be anybody's. Our dialer refuses it; that the socket is
	// closed, once the reading has ended, ends the dump all the same.
	defer func() { d.shut(); syncer.Close() }()

	watching, done := context.WithCancel(ctx)
	var clock sync.WaitGroup
	clock.Go(func() { s.watchClock(watching, s.db) })
	defer clock.Wait()
	defer done()
	s.reading.connected(time.Now(), s.pos, s.logEnd(ctx)) // it is handed events from begin on
	streamer, err := s.begin(syncer)
	if err == nil {
		s.obs.Connected()
		_, err = streamer.GetEvent(ctx)
	}
	if herr := link.failure(); herr != nil {
		return link.took.Load(), &streamError{herr}
	}
	return link.took.Load(), classify(err)
}

// logEnd is where the log ends now, to know when all of it has been read; without it the
// server's next heartbeat tells.
func (s *Source) logEnd(ctx context.Context) rowtide.Position {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	file, pos, _, err := s.server.head(ctx, s.db)
	if err != nil {
		s.log.Debug("where the log ends is not known", "err", err)
	}
	return rowtide.Position{File: file, Pos: pos}
}

func (s *Source) begin(syncer *replication.BinlogSyncer) (*replication.BinlogStreamer, error) {
	// MariaDB refuses a set that lies before its oldest log's first transaction,
	// so a first start goes by file.
	if !s.useGTID || s.fresh && s.server.Flavor == mysql.MariaDBFlavor {
		return syncer.StartSync(mysql.Position{Name: s.pos.File, Pos: uint32(min(s.pos.Pos, 1<<32-1))})
	}
	set, err := s.received.current()
	if err != nil {
		return nil, &streamError{err}
	}
	// The syncer changes the set it is given.
	return syncer.StartSyncGTID(set.Clone())
}

func (s *Source) syncer(d *dialer, h replication.EventHandler) (*replication.BinlogSyncer, error) {
	host, port, err := s.cfg.hostPort()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := s.cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	cfg := replication.BinlogSyncerConfig{
		ServerID: s.cfg.ServerID, Flavor: s.server.Flavor, Host: host, Port: port,
		User: s.cfg.User, Password: s.cfg.Password, TLSConfig: tlsConfig,
		HeartbeatPeriod:         s.cfg.Heartbeat, // silence is noticed by our own connection, see idleConn
		ParseTime:               true,            // a third faster than text, and typed
		RenderJSONAsMySQLText:   true,            // as a SELECT shows it
		DisableRetrySync:        true,            // the library's retry repeats rows without a sign
		DiscardGTIDSet:          true,            // see gtidSet
		FillZeroLogPos:          s.server.Flavor == mysql.MariaDBFlavor,
		VerifyChecksum:          true,
		EventCacheCount:         1, // unused with a synchronous handler
		SynchronousEventHandler: h,
		Dialer:                  d.dial,
		Logger:                  slog.New(slog.DiscardHandler), // its news are told by our own errors and states
		Option:                  s.prepare,
	}
	if l, ok := h.(*link); ok {
		cfg.RowsEventDecodeFunc = func(e *replication.RowsEvent, data []byte) error {
			l.gate.Lock() // the list of watched tables
			defer l.gate.Unlock()
			return l.asm.decodeWatched(e, data)
		}
	}
	return replication.NewBinlogSyncer(cfg), nil
}

// prepare readies the connection that will carry the log: it must lead to the
// server that was checked, which after a switch of a name or a proxy a second
// connection proves nothing about.
func (s *Source) prepare(c *client.Conn) error {
	if _, err := c.Execute(netWriteTimeout); err != nil {
		return err
	}
	r, err := c.Execute(identityQuery(s.server.Flavor))
	if err != nil {
		return err
	}
	id, err := r.GetString(0, 0)
	if err == nil && id != s.server.ID {
		err = fmt.Errorf("%s is server %s now, it was %s", s.cfg.Addr, id, s.server.ID)
	}
	return err
}

// classify tells what reconnecting can mend from what it cannot.
func classify(err error) error {
	var my *mysql.MyError
	if err == nil || !errors.As(err, &my) || my.Code != errFatalReadingLog {
		return err
	}
	if strings.Contains(my.Message, "same server_uuid/server_id") || strings.Contains(my.Message, "same server_id") {
		return &streamError{fmt.Errorf("%w: %w; set another source.server_id", ErrServerIDTaken, err)}
	}
	return &streamError{fmt.Errorf("%w: %w", rowtide.ErrPositionLost, err)}
}

// Close releases the connections for queries. It may be called twice.
func (s *Source) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// link passes events of one connection to the assembler and keeps its error,
// which the library would hand back without its chain.
type link struct {
	ctx  context.Context //nolint:containedctx // the library's handler takes none
	asm  *assembler
	gate *sync.Mutex // held while an event is taken in
	idle func()      // told of heartbeats
	took atomic.Bool
	mu   sync.Mutex
	err  error
}

// HandleEvent implements replication.EventHandler.
func (l *link) HandleEvent(e *replication.BinlogEvent) error {
	if _, nothing := e.Event.(*replication.HeartbeatEvent); nothing {
		l.idle()
		return nil
	}
	l.gate.Lock()
	err := l.asm.event(l.ctx, e.Header, e.Event)
	l.gate.Unlock()
	if err != nil {
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
	}
	return err
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
