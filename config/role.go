package config

import (
	"errors"
	"fmt"
	"time"
)

// What a daemon may do.
const (
	RoleAll     = "all"
	RoleReader  = "reader"
	RoleApplier = "applier"
)

// DefaultLease lets a standby take over within three seconds of a kill, and
// outlasts a pause of the garbage collector or of a busy machine.
const DefaultLease = 1500 * time.Millisecond

// Election says whether one of several daemons of the same name works while the
// others stand by.
type Election struct {
	// Enabled makes the daemon wait for its turn. A pointer, since the default
	// depends on the role.
	//
	// Defaults to true with the role reader, else to false.
	Enabled *bool `mapstructure:"enabled"`
	// Lease is how long the work of a daemon that was killed waits for another.
	//
	// Defaults to 1.5s.
	Lease time.Duration `mapstructure:"lease"`
}

func (e Election) withDefaults(role string) Election {
	if e.Enabled == nil {
		e.Enabled = new(role == RoleReader)
	}
	if e.Lease == 0 {
		e.Lease = DefaultLease
	}
	return e
}

// validateRole checks the role and what depends on it.
func (c Config) validateRole() error {
	var errs []error
	switch c.Role {
	case RoleAll:
	case RoleReader, RoleApplier:
		if c.Source.Kind == KindKafka {
			errs = append(errs, fmt.Errorf("role %s: a source of kind kafka is read by role all only; its changes are in Kafka already", c.Role))
		}
	default:
		errs = append(errs, fmt.Errorf("role %q: want all, reader or applier", c.Role))
	}
	if c.Election.Lease < 500*time.Millisecond || c.Election.Lease > time.Minute {
		errs = append(errs, fmt.Errorf("election.lease %s: want 500ms to 1m", c.Election.Lease))
	}
	if *c.Election.Enabled && c.Role == RoleApplier {
		errs = append(errs, errors.New("election.enabled: appliers share the work instead of standing by; remove it"))
	}
	if *c.Election.Enabled && c.Checkpoint.Store != CheckpointRedis {
		errs = append(errs, fmt.Errorf("election.enabled: standbys go on from one checkpoint, and checkpoint.store %s is not shared; use redis", c.Checkpoint.Store))
	}
	return errors.Join(errs...)
}
