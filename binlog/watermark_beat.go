package binlog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"
)

// heartbeats writes the row again and again and measures how long it is until the
// checkpoint covers it: the way through the log and all stages.
func (b *Backfiller) heartbeats(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for failing := false; ; {
		err := b.heartbeat(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			b.log.Warn("heartbeat row cannot be written, repeating", "err", err)
		}
		failing = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Backfiller) heartbeat(ctx context.Context) error {
	token, begun := newToken(), time.Now()
	came := b.marks.expect(token)
	if err := b.beat(ctx, b.db, token); err != nil {
		b.marks.forget(token)
		return err
	}
	var m mark
	select {
	case m = <-came:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		saved, next := b.src.progress.lastSaved()
		if saved >= m.version {
			break
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if m.version != 0 {
		b.obs.HeartbeatCovered(time.Since(begun))
	}
	return nil
}

// newToken is like no other of any daemon.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
