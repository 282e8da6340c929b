package binlog

import "errors"

// Sentinels that a caller decides on; see also rowtide.ErrPositionLost and
// rowtide.ErrSchemaChanged, which this package returns too.
var (
	// ErrPreflight means the server cannot be read as it is set up. The joined
	// errors each name a setting and the statement that mends it. Nothing has
	// been written; exit code 1.
	ErrPreflight = errors.New("the source is not ready")

	// ErrUnreadable means the log holds a change that cannot be applied as rows:
	// a statement, a partial image, an incident. Stop; skipping it would leave
	// the cache wrong in silence.
	ErrUnreadable = errors.New("the log holds a change that is not a full row image")

	// ErrServerIDTaken means another replica registered with our server_id. Stop
	// one of the two or give it another id.
	ErrServerIDTaken = errors.New("another replica uses this server_id")
)
