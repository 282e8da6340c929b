package stockapi

// SetAfterSend runs f between the acknowledgement of Kafka and the mark in Redis.
func (r *Relay) SetAfterSend(f func(Batch) error) { r.afterSend = f }

// SetBeforeCommit runs f between the last statement and the commit.
func (l *Ledger) SetBeforeCommit(f func() error) { l.beforeCommit = f }

// MetaKey names the counters of an event.
func MetaKey(prefix, event string) string { return keysOf(prefix, Cell{Event: event}).meta() }

// OutboxKey names the outbox of an event.
func OutboxKey(prefix, event string) string { return keysOf(prefix, Cell{Event: event}).outbox() }

// UserKey names a user's limit counters.
func UserKey(prefix, event, user string) string {
	return keysOf(prefix, Cell{Event: event}).user(user)
}

// BatchOf reads an outbox as the relay does.
var BatchOf = batchOf
