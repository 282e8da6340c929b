package stockapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
)

// Deps is what a Service, Relay, Ledger or Checker works with. They are opened and
// closed by the caller.
type Deps struct {
	// Redis must not repeat commands by itself, see CheckRedis.
	Redis redis.UniversalClient
	// Observer defaults to NopObserver.
	Observer Observer
	// Logger defaults to discarding.
	Logger *slog.Logger
}

func (d Deps) withDefaults() Deps {
	if d.Observer == nil {
		d.Observer = NopObserver{}
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return d
}

// Service decides over stock. Its methods are safe for concurrent use, by many
// processes on one Redis.
type Service struct {
	cfg  Config
	deps Deps
	lua  *scripts
}

// New returns a Service. It does no I/O.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Redis == nil {
		return nil, errors.New("stock: no redis client")
	}
	if err := CheckRedis(deps.Redis); err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, deps: deps.withDefaults(), lua: newScripts()}, nil
}

// cellOf is the cell of a user. With more than one cell it will hash the user.
func (s *Service) cellOf(event, _ string) Cell { return Cell{Event: event} }

// Hold takes all items of the request or none. On nil the units are the buyer's
// until the deadline. The same request under the same key returns the first answer
// with Replayed set, even after the hold has ended. A *RefusalError means that
// nothing was changed; ErrUnknownOutcome that the request must be repeated.
func (s *Service) Hold(ctx context.Context, req HoldRequest) (Hold, error) {
	asked := req.TTL
	req, err := req.normalize(s.cfg)
	if err != nil {
		return Hold{}, err
	}
	cell := s.cellOf(req.Event, req.User)
	id := HoldID{Cell: cell, Hash: holdHash(req.Client, req.Event, req.User, req.Key)}
	checks := compileLimits(s.cfg.Limits, req.Event, req.Items)
	if len(checks) > maxLimits {
		return Hold{}, fmt.Errorf("%w: %d purchase limits apply, at most %d can be tested at once", ErrInvalid, len(checks), maxLimits)
	}
	k := keysOf(s.cfg.Prefix, cell)
	reply, err := s.mutate(ctx, "hold", s.lua.hold, k.with(k.hold(id.Hash), k.user(req.User)),
		id.Hash, req.User, req.print(asked), req.Epoch, req.TTL.Milliseconds(), s.cfg.Grace.Milliseconds(),
		s.cfg.OutboxMax, req.Order, packItems(req.Items), packLimits(checks))
	if err != nil {
		return Hold{}, fmt.Errorf("hold %s: %w", id, err)
	}
	if reply[0] != "OK" && reply[0] != "DUP" {
		return Hold{}, fmt.Errorf("hold %s: %w", id, holdRefusal(reply, req, checks))
	}
	rec, err := parseRecord(reply[1])
	if err != nil {
		return Hold{}, fmt.Errorf("hold %s: %w", id, err)
	}
	h := rec.held(id)
	h.Replayed = reply[0] == "DUP"
	return h, nil
}

// Confirm sells what is held. It wins for as long as the hold is HELD, even past
// its deadline. The same payment reference again returns the first answer.
func (s *Service) Confirm(ctx context.Context, id HoldID, payment string) (Hold, error) {
	if payment != "" && !validID(payment) {
		return Hold{}, fmt.Errorf("%w: payment reference %q", ErrInvalid, payment)
	}
	k := keysOf(s.cfg.Prefix, id.Cell)
	reply, err := s.mutate(ctx, "confirm", s.lua.confirm, k.with(k.hold(id.Hash)),
		id.Hash, payment, s.cfg.Retention.Milliseconds())
	return ended(id, "confirm", reply, err)
}

// Cancel gives back what is held. Cancelling twice returns the first answer.
func (s *Service) Cancel(ctx context.Context, id HoldID, reason string) (Hold, error) {
	if reason != "" && !validID(reason) {
		return Hold{}, fmt.Errorf("%w: reason %q", ErrInvalid, reason)
	}
	// The script gets every key by name, and the name of the limit counters takes
	// the user, whom only the hold knows. It never changes, so reading it first is
	// no race.
	rec, err := s.read(ctx, id)
	if err != nil {
		return Hold{}, fmt.Errorf("cancel %s: %w", id, err)
	}
	k := keysOf(s.cfg.Prefix, id.Cell)
	reply, err := s.mutate(ctx, "cancel", s.lua.cancel, k.with(k.hold(id.Hash), k.user(rec.user)),
		id.Hash, reason, s.cfg.Retention.Milliseconds())
	return ended(id, "cancel", reply, err)
}

// Lookup is the hold as it stands in Redis now.
func (s *Service) Lookup(ctx context.Context, id HoldID) (Hold, error) {
	rec, err := s.read(ctx, id)
	if err != nil {
		return Hold{}, fmt.Errorf("look up hold %s: %w", id, err)
	}
	return rec.now(id), nil
}

func (s *Service) read(ctx context.Context, id HoldID) (record, error) {
	packed, err := s.deps.Redis.Get(ctx, keysOf(s.cfg.Prefix, id.Cell).hold(id.Hash)).Result()
	if errors.Is(err, redis.Nil) {
		return record{}, &RefusalError{Code: CodeHoldNotFound}
	}
	if err != nil {
		return record{}, err
	}
	return parseRecord(packed)
}

// mutate runs a script until its outcome is known. A lost reply is answered by the
// same call again: the scripts know a hold that they have already dealt with.
func (s *Service) mutate(ctx context.Context, op string, sc *redis.Script, keys []string, args ...any) ([]string, error) {
	start := time.Now()
	var reply []string
	var err error
	for range s.cfg.Attempts {
		reply, err = run(ctx, s.deps.Redis, sc, keys, args...)
		if err == nil || definite(err) || ctx.Err() != nil {
			break
		}
	}
	code := "ok"
	switch {
	case err != nil && definite(err):
		code, err = "error", unavailable(err)
	case err != nil:
		code, err = "unknown", fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case reply[0] == "DUP":
		code = "replay"
	case reply[0] != "OK":
		code = string(codes[reply[0]])
	}
	s.deps.Observer.Operation(op, code, time.Since(start))
	return reply, err
}

// ended reads the reply of confirm and cancel.
func ended(id HoldID, op string, reply []string, err error) (Hold, error) {
	if err == nil && reply[0] != "OK" && reply[0] != "DUP" {
		err = refusal(reply)
	}
	if err != nil {
		return Hold{}, fmt.Errorf("%s %s: %w", op, id, err)
	}
	rec, err := parseRecord(reply[1])
	if err != nil {
		return Hold{}, fmt.Errorf("%s %s: %w", op, id, err)
	}
	h := rec.now(id)
	h.Replayed = reply[0] == "DUP"
	return h, nil
}
