// Package overwrite holds the one Lua script by which anything of Rowtide's is
// written to Redis: set-if-newer over envelopes. The publisher uses it for
// changes, localsync for values that a node loaded.
package overwrite

import _ "embed"

// Script is the source of the script; its head comment documents the arguments.
//
//go:embed overwrite.lua
var Script string

// Mode says who writes; it decides ties and missing keys.
type Mode string

// The three modes.
const (
	// CDC writes a change from the log: it wins against an equal version, so
	// that a replay after a crash ends in the same bytes.
	CDC Mode = "cdc"
	// Replay writes a change that is older than what the writer already applied:
	// it never brings back a key that is missing, since whatever evicted the key
	// also evicted the proof that this change is still the newest.
	Replay Mode = "replay"
	// Fill writes a value that a node loaded: it loses against an equal version.
	Fill Mode = "fill"
)

// Result is what the script did with one key. The numbers are the script's
// return codes and are part of its contract.
type Result int64

// The results.
const (
	Stale     Result = 0 // something newer was there: nothing written
	Written   Result = 1
	Tie       Result = 2 // fill: an equal version was there, nothing written
	Missing   Result = 3 // replay: the key was missing, nothing written
	WrongType Result = 4 // the key holds a hash, list, …: nothing written
	Fenced    Result = 5 // another writer was elected since: nothing written
)

// String is the result's name as a metric label.
func (r Result) String() string {
	switch r {
	case Stale:
		return "stale"
	case Written:
		return "written"
	case Tie:
		return "tie"
	case Missing:
		return "missing"
	case WrongType:
		return "wrong_type"
	case Fenced:
		return "fenced"
	}
	return "unknown"
}
