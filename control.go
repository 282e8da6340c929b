package rowtide

import (
	"encoding/json"
	"fmt"
	"time"
)

// ControlFormat is the format of the records of the control topic and of dead
// letters. New fields do not raise it; a field with a new meaning does.
const ControlFormat = 1

// ModuleControl is one record of the control topic: what every node is to know
// of one module. The record's key is the module's name, so that compaction keeps
// the newest.
type ModuleControl struct {
	Name string
	// Version of the module's key space.
	Version uint16
	// Previous is the version whose key space stands in while that of Version is
	// being filled; 0 once it is, and when there was none.
	Previous uint16
	Settings ModuleSettings
	// Generation grows when all entries of the module are to be read again.
	Generation uint32
	// Since is the version of the change that raised Generation; zero when no
	// change did. A value of that version or a newer one is of this generation.
	Since Version
	// Epoch of the source's log, for information.
	Epoch uint32
}

// ModuleSettings are the settings of a module that nodes follow while they run.
// A zero field leaves the node's own.
type ModuleSettings struct {
	TTL, Refresh           time.Duration
	EmptyTTL, EmptyRefresh time.Duration
	// OnError is "keep" or "optional".
	OnError  string
	MaxStale time.Duration
	// Push says that small values travel with their invalidations.
	Push bool
	// Codec is the payloads' form, "json", "msgpack" or "raw"; empty if the daemon
	// did not say. It is for readers that pass payloads on, and nothing a node follows.
	Codec string
}

type controlJSON struct {
	Format     int          `json:"format"`
	Name       string       `json:"name"`
	Version    uint16       `json:"version"`
	Previous   uint16       `json:"previous,omitempty"`
	Settings   settingsJSON `json:"settings"`
	Generation uint32       `json:"generation"`
	// A string, since JSON numbers are exact to 2^53 only.
	Since Version `json:"since,string"`
	Epoch uint32  `json:"epoch"`
}

type settingsJSON struct {
	TTL      int64      `json:"ttl_ms"`
	Refresh  int64      `json:"refresh_ms"`
	Empty    windowJSON `json:"empty"`
	OnError  string     `json:"on_error"`
	MaxStale int64      `json:"max_stale_ms"`
	Push     bool       `json:"push"`
	Codec    string     `json:"codec,omitempty"`
}

type windowJSON struct {
	TTL     int64 `json:"ttl_ms"`
	Refresh int64 `json:"refresh_ms"`
}

// AppendControl appends the record's value, a JSON object, to dst. Durations are
// cut to milliseconds.
func (m *ModuleControl) AppendControl(dst []byte) []byte {
	s := &m.Settings
	b, err := json.Marshal(controlJSON{
		Format: ControlFormat, Name: m.Name, Version: m.Version, Previous: m.Previous, Generation: m.Generation, Since: m.Since, Epoch: m.Epoch,
		Settings: settingsJSON{
			TTL: s.TTL.Milliseconds(), Refresh: s.Refresh.Milliseconds(),
			Empty:   windowJSON{TTL: s.EmptyTTL.Milliseconds(), Refresh: s.EmptyRefresh.Milliseconds()},
			OnError: s.OnError, MaxStale: s.MaxStale.Milliseconds(), Push: s.Push, Codec: s.Codec,
		},
	})
	if err != nil {
		panic(err) // numbers, texts and booleans always marshal
	}
	return append(dst, b...)
}

// DecodeControl reads the value of a record of the control topic. Fields that it
// does not know are ignored. The errors are [ErrNewerFormat] and [ErrCorrupt].
func DecodeControl(b []byte) (ModuleControl, error) {
	var j controlJSON
	if err := decodeVersioned(b, &j, &j.Format); err != nil {
		return ModuleControl{}, fmt.Errorf("decode control record: %w", err)
	}
	if j.Name == "" {
		return ModuleControl{}, fmt.Errorf("decode control record: no module is named: %w", ErrCorrupt)
	}
	return ModuleControl{
		Name: j.Name, Version: j.Version, Previous: j.Previous, Generation: j.Generation, Since: j.Since, Epoch: j.Epoch,
		Settings: ModuleSettings{
			TTL: millis(j.Settings.TTL), Refresh: millis(j.Settings.Refresh),
			EmptyTTL: millis(j.Settings.Empty.TTL), EmptyRefresh: millis(j.Settings.Empty.Refresh),
			OnError: j.Settings.OnError, MaxStale: millis(j.Settings.MaxStale), Push: j.Settings.Push, Codec: j.Settings.Codec,
		},
	}, nil
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// decodeVersioned reads a JSON object that says its own format. The format is
// judged first: what a newer one holds need not fit into.
func decodeVersioned(b []byte, into any, format *int) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if head.Format > ControlFormat {
		return fmt.Errorf("format %d: %w", head.Format, ErrNewerFormat)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if *format < 1 {
		return fmt.Errorf("format %d: %w", *format, ErrCorrupt)
	}
	return nil
}
