// Package config reads Rowtide's YAML, with environment variables over it. It is
// the only place that knows viper.
package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/internal/sidecar"
	"github.com/rowtide/rowtide/publisher"
)

// Where a checkpoint may be kept.
const (
	CheckpointRedis = "redis"
	CheckpointFile  = "file"
)

// Config is the whole of the daemon's configuration.
type Config struct {
	// Name tells several daemons on one Redis apart; it names the checkpoint.
	//
	// Defaults to "main".
	Name string `mapstructure:"name"`
	// Role is all, reader (changes go to Kafka) or applier (they come from there);
	// `rowtide run --role` goes before it.
	//
	// Defaults to all.
	Role       string            `mapstructure:"role"`
	Election   Election          `mapstructure:"election"`
	Source     Source            `mapstructure:"source"`
	Redis      Redis             `mapstructure:"redis"`
	Kafka      publisher.Config  `mapstructure:"kafka"`
	Checkpoint Checkpoint        `mapstructure:"checkpoint"`
	Aggregator aggregator.Config `mapstructure:"aggregator"`
	HTTP       HTTP              `mapstructure:"http"`
	Log        Log               `mapstructure:"log"`
	// Node is for `rowtide node`, which needs no other section than this, Redis and
	// Kafka.
	Node    sidecar.Config            `mapstructure:"node"`
	Modules []aggregator.ModuleConfig `mapstructure:"modules"`
}

// Redis says where the entries go.
type Redis struct {
	// Addrs is one host:port, or the seeds of a cluster, or the sentinels.
	// Required.
	Addrs []string `mapstructure:"addrs"`
	// Cluster treats Addrs as cluster seeds even when there is only one.
	Cluster bool `mapstructure:"cluster"`
	// Master is the name that the sentinels know the primary by.
	Master string `mapstructure:"master"`
	// Username and Password of the ACL user.
	Username string `mapstructure:"username"`
	Password string `mapstructure:"password"`
	// PasswordFile is read at start when Password is empty.
	PasswordFile string `mapstructure:"password_file"`
	// DB is the database's number; a cluster has only 0.
	DB int `mapstructure:"db"`
	// Prefix starts every key.
	//
	// Defaults to "rowtide".
	Prefix string `mapstructure:"prefix"`
	// TLS is off, on or skip-verify.
	//
	// Defaults to off.
	TLS string `mapstructure:"tls"`
}

// Checkpoint says where the position is kept.
type Checkpoint struct {
	// Store is redis (beside the data, sharing its fate) or file.
	//
	// Defaults to redis.
	Store string `mapstructure:"store"`
	// Path of the file store.
	Path string `mapstructure:"path"`
}

// HTTP serves /metrics, /healthz, /readyz and /status.
type HTTP struct {
	// Listen is host:port; empty serves nothing.
	//
	// Defaults to 127.0.0.1:8077.
	Listen string `mapstructure:"listen"`
	// Pprof serves /debug/pprof too. Off by default: a profile tells much and
	// costs something.
	Pprof bool `mapstructure:"pprof"`
	// AdminToken is what POST /admin/reload wants as "Authorization: Bearer …".
	// Empty: the admin routes are refused.
	AdminToken string `mapstructure:"admin_token"`
}

// Log says how much is told. The steady state is silent at info.
type Log struct {
	// Level is debug, info, warn or error.
	//
	// Defaults to info.
	Level string `mapstructure:"level"`
	// Format is text or json.
	//
	// Defaults to text.
	Format string `mapstructure:"format"`
}

// DefaultListen is the daemon's HTTP address: loopback, since it has no login.
const DefaultListen = "127.0.0.1:8077"

// WithDefaults returns a copy with every empty optional field filled in.
func (c Config) WithDefaults() Config {
	if c.Name == "" {
		c.Name = "main"
	}
	if c.Role == "" {
		c.Role = RoleAll
	}
	c.Election = c.Election.withDefaults(c.Role)
	c.Source = c.Source.WithDefaults()
	if c.Redis.Prefix == "" {
		c.Redis.Prefix = publisher.DefaultPrefix
	}
	if c.Redis.TLS == "" {
		c.Redis.TLS = "off"
	}
	c.Kafka.Prefix = c.Redis.Prefix
	c.Kafka = c.Kafka.WithDefaults()
	if c.Checkpoint.Store == "" {
		c.Checkpoint.Store = CheckpointRedis
	}
	c.Aggregator = c.Aggregator.WithDefaults()
	c.Node = c.Node.WithDefaults()
	if c.Log.Level == "" {
		c.Log.Level = "info"
	}
	if c.Log.Format == "" {
		c.Log.Format = "text"
	}
	c.Modules = append([]aggregator.ModuleConfig(nil), c.Modules...)
	for i := range c.Modules {
		c.Modules[i] = c.Modules[i].WithDefaults()
	}
	return c
}

// Validate reports every fault of a config with defaults, joined.
func (c Config) Validate() error {
	return errors.Join(
		c.Source.Validate(), c.Redis.validate(), c.Kafka.Validate(), c.Checkpoint.validate(),
		c.Aggregator.Validate(), c.Log.validate(), c.Node.Validate(), aggregator.ValidateModules(c.Modules), c.validateRebuilds(), c.validateRole(),
	)
}

// validateNode is Validate for the sections that `rowtide node` uses. Modules are
// optional: the daemon tells of them.
func (c Config) validateNode() error {
	err := errors.Join(c.Redis.validate(), c.Kafka.Validate(), c.Log.validate(), c.Node.Validate())
	if len(c.Modules) > 0 {
		err = errors.Join(err, aggregator.ValidateModules(c.Modules))
	}
	return err
}

func (r Redis) validate() error {
	var errs []error
	if len(r.Addrs) == 0 {
		errs = append(errs, errors.New("redis.addrs is missing: list at least one host:port"))
	}
	if r.Cluster && r.Master != "" {
		errs = append(errs, errors.New("redis.cluster and redis.master exclude each other: sentinels watch a single primary"))
	}
	if (r.Cluster || len(r.Addrs) > 1 && r.Master == "") && r.DB != 0 {
		errs = append(errs, fmt.Errorf("redis.db %d: a cluster has only database 0", r.DB))
	}
	if r.TLS != "off" && r.TLS != "on" && r.TLS != "skip-verify" {
		errs = append(errs, fmt.Errorf("redis.tls %q: want off, on or skip-verify", r.TLS))
	}
	if strings.ContainsAny(r.Prefix, " \n{}") {
		errs = append(errs, fmt.Errorf("redis.prefix %q: no spaces or braces; braces would put all keys into one cluster slot", r.Prefix))
	}
	return errors.Join(errs...)
}

func (c Checkpoint) validate() error {
	switch c.Store {
	case CheckpointRedis:
		return nil
	case CheckpointFile:
		if c.Path == "" {
			return errors.New("checkpoint.path is missing: name the file that keeps the position")
		}
		return nil
	}
	return fmt.Errorf("checkpoint.store %q: want redis or file", c.Store)
}

func (l Log) validate() error {
	var errs []error
	switch l.Level {
	case "debug", "info", "warn", "error":
	default:
		errs = append(errs, fmt.Errorf("log.level %q: want debug, info, warn or error", l.Level))
	}
	if l.Format != "text" && l.Format != "json" {
		errs = append(errs, fmt.Errorf("log.format %q: want text or json", l.Format))
	}
	return errors.Join(errs...)
}

// readSecret fills *secret from a file when it is empty.
func readSecret(secret *string, path, key string) error {
	if *secret != "" || path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	*secret = strings.TrimRight(string(b), "\r\n")
	return nil
}
