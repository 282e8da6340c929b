package rowtide

import "errors"

// Each sentinel is a decision handed to the caller.
var (
	// ErrPositionLost means the source no longer has the log that the checkpoint
	// points into. Stop (exit code 3) and backfill: continuing from the oldest
	// log that is left would skip changes in silence.
	ErrPositionLost = errors.New("position no longer available")

	// ErrSchemaChanged means an event's columns do not fit the table's known
	// shape. Do not map values to names; read the schema again.
	ErrSchemaChanged = errors.New("table shape does not match the event")

	// ErrNotEnvelope means the bytes are not a Rowtide envelope. Treat the key as
	// missing; a write replaces them.
	ErrNotEnvelope = errors.New("not a rowtide envelope")

	// ErrCorrupt means the bytes claim to be ours and fail a check (length,
	// checksum, key). Count it, treat the key as missing, never use the payload.
	ErrCorrupt = errors.New("corrupt bytes")

	// ErrNewerFormat means a newer Rowtide wrote the bytes. Treat the key as
	// missing and leave the bytes alone: upgrade this reader.
	ErrNewerFormat = errors.New("written by a newer format")
)
