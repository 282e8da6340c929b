package localsync

import (
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// Level says where a read found its value. The zero Level is invalid.
type Level uint8

// The levels, nearest first.
const (
	// LevelObject is a decoded value of the local store, see ModuleConfig.Objects.
	LevelObject Level = iota + 1
	// LevelLocal is the local store's bytes.
	LevelLocal
	LevelRedis
	LevelLoader
)

// String is the level's name as a metric label.
func (l Level) String() string {
	switch l {
	case LevelObject:
		return "object"
	case LevelLocal:
		return "local"
	case LevelRedis:
		return "redis"
	case LevelLoader:
		return "loader"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// Info says how much a value is worth.
type Info struct {
	// Level is where the value was found.
	Level Level
	// Version orders the value among all states of its key. A value that a
	// loader made carries the watermark that it is known to include. Of a Stale value
	// from the local levels it is what the value surely includes, zero where nothing is
	// sure: less than Redis or the loader told the first reader, never more.
	Version rowtide.Version
	// Age is the time since the value was last shown to be the newest, not since
	// the row last changed.
	Age time.Duration
	// Stale is true when a newer state is known or must be feared (its
	// invalidation was heard, or records were missed), and it could be neither
	// read nor proven. The value is the last good one, or a loader's that is too
	// young to be proven.
	Stale bool
	// Degraded is true when the bus has been silent for longer than Options.Silence, or
	// the daemon says that it is as far behind the source, so that invalidations may be
	// missing, and for an Optional module's ErrNotFound that stands for an error.
	Degraded bool
}
