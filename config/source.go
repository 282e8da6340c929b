package config

import (
	"errors"
	"fmt"

	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/feed"
)

// What a source may be.
const (
	KindBinlog = "binlog"
	KindKafka  = "kafka"
)

// Source says where the changes come from. The keys of both kinds stand side by
// side; those of the other kind are not checked.
type Source struct {
	// Kind is binlog (a server's log) or kafka (topics that another capture
	// fills).
	//
	// Defaults to binlog.
	Kind string `mapstructure:"kind"`
	// The server. With kafka only Addr, User, Password, TLS and TLSCA are used, to
	// ask for the rows of rebuild modules; Addr is optional then.
	binlog.Config `mapstructure:",squash"`
	// Feed holds the topics.
	Feed feed.Config `mapstructure:",squash"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (s Source) WithDefaults() Source {
	if s.Kind == "" {
		s.Kind = KindBinlog
	}
	s.Config = s.Config.WithDefaults()
	s.Feed.StartAt = s.StartAt
	s.Feed = s.Feed.WithDefaults()
	return s
}

// Validate reports every fault of a config with defaults, joined.
func (s Source) Validate() error {
	switch s.Kind {
	case KindBinlog:
		return s.Config.Validate()
	case KindKafka:
		err := s.Feed.Validate()
		if s.Addr == "" {
			return err
		}
		asked := s.Config
		// What only a stream of the log needs.
		asked.ServerID, asked.StartAt, asked.Mode = 1, binlog.StartEarliest, binlog.ModeAuto
		return errors.Join(err, asked.Validate())
	}
	return fmt.Errorf("source.kind %q: want binlog or kafka", s.Kind)
}

// validateRebuilds refuses modules that a feed cannot serve.
func (c Config) validateRebuilds() error {
	if c.Source.Kind != KindKafka {
		return nil
	}
	var errs []error
	for i, m := range c.Modules {
		switch {
		case m.Rebuild == nil:
		case c.Source.Addr == "":
			errs = append(errs, fmt.Errorf("modules[%d].rebuild: module %s asks the database, and a source of kind kafka has none; set source.addr and source.user", i, m.Name))
		case c.Source.Feed.Keyed:
			errs = append(errs, fmt.Errorf("modules[%d].rebuild: source.keyed orders the changes of one row only, and module %s has several in a document", i, m.Name))
		}
	}
	return errors.Join(errs...)
}
