package binlog

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// Where a first start (no checkpoint) begins.
const (
	StartEarliest = "earliest"
	StartLatest   = "latest"
)

// How a stream is positioned.
const (
	ModeAuto = "auto"
	ModeGTID = "gtid"
	ModeFile = "file"
)

// Defaults of [Config]; each has its reason at the field.
const (
	DefaultHeartbeat   = 5 * time.Second
	DefaultReadTimeout = 3 * DefaultHeartbeat

	DefaultBackfillSchema = "rowtide"
	// DefaultBackfillChunk is short beside the lag that live changes may have:
	// they wait behind a chunk that is being written.
	DefaultBackfillChunk = 500 * time.Millisecond
)

// Config says which server to read and how.
type Config struct {
	// Addr is host:port of the server. Required.
	Addr string `mapstructure:"addr"`
	// User needs REPLICATION SLAVE, REPLICATION CLIENT (MariaDB: also BINLOG
	// MONITOR) and SELECT on the tables of the modules. Required.
	User string `mapstructure:"user"`
	// Password may be given here, in ROWTIDE_SOURCE_PASSWORD, or in a file.
	Password string `mapstructure:"password"`
	// PasswordFile is read at start when Password is empty.
	PasswordFile string `mapstructure:"password_file"`
	// ServerID is this reader's own replica id, unique among all servers and
	// replicas of the cluster. Required: a random one could clash unseen.
	ServerID uint32 `mapstructure:"server_id"`
	// Mode is auto (GTIDs if the server has them), gtid or file.
	//
	// Defaults to auto.
	Mode string `mapstructure:"mode"`
	// StartAt is where to begin when there is no checkpoint: earliest (the
	// oldest log the server still has), latest, or FILE:POS.
	//
	// Defaults to earliest.
	StartAt string `mapstructure:"start_at"`
	// Heartbeat is how often an idle server must give a sign of life.
	//
	// Defaults to 5s.
	Heartbeat time.Duration `mapstructure:"heartbeat"`
	// ReadTimeout is the silence after which a connection counts as dead; at
	// least two heartbeats.
	//
	// Defaults to 15s.
	ReadTimeout time.Duration `mapstructure:"read_timeout"`
	// TLS is off, on (verified) or skip-verify.
	//
	// Defaults to off.
	TLS string `mapstructure:"tls"`
	// TLSCA is a PEM file with the authorities to trust instead of the system's.
	TLSCA string `mapstructure:"tls_ca"`
	// HeartbeatRow is how often a row is written to the source to measure how long
	// it takes to come back, through all stages, and to move the checkpoint of an
	// idle server on. It needs the schema of Backfill. 0 writes none.
	HeartbeatRow time.Duration `mapstructure:"heartbeat_row"`
	// Backfill reads the rows that the log does not tell of.
	Backfill BackfillConfig `mapstructure:"backfill"`
}

// BackfillConfig says how whole tables are read beside the stream.
type BackfillConfig struct {
	// Schema is the source's schema for our own two tables, heartbeat and
	// backfill, which are created when they are missing.
	//
	// Defaults to rowtide.
	Schema string `mapstructure:"schema"`
	// Auto reads the table of every module that is new, and of all modules when
	// there is no checkpoint. A pointer, since false must differ from not given.
	//
	// Defaults to true.
	Auto *bool `mapstructure:"auto"`
	// Chunk is how long the reading of one chunk may take; the number of its rows
	// adapts to it.
	//
	// Defaults to 500ms.
	Chunk time.Duration `mapstructure:"chunk"`
	// Rate is the most rows to read per second; 0 sets no limit.
	Rate int `mapstructure:"rate"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (c Config) WithDefaults() Config {
	if c.Mode == "" {
		c.Mode = ModeAuto
	}
	if c.StartAt == "" {
		c.StartAt = StartEarliest
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = max(DefaultReadTimeout, 3*c.Heartbeat)
	}
	if c.TLS == "" {
		c.TLS = "off"
	}
	if c.Backfill.Schema == "" {
		c.Backfill.Schema = DefaultBackfillSchema
	}
	if c.Backfill.Auto == nil {
		c.Backfill.Auto = new(true)
	}
	if c.Backfill.Chunk == 0 {
		c.Backfill.Chunk = DefaultBackfillChunk
	}
	return c
}

// Validate reports every fault of a config with defaults, joined.
func (c Config) Validate() error {
	var errs []error
	if _, _, err := c.hostPort(); err != nil {
		errs = append(errs, err)
	}
	if c.User == "" {
		errs = append(errs, errors.New("source.user is missing: name the MySQL or MariaDB account to replicate with"))
	}
	if c.ServerID == 0 {
		errs = append(errs, errors.New("source.server_id is missing: choose a number that no server or replica of this cluster uses"))
	}
	switch c.Mode {
	case ModeAuto, ModeGTID, ModeFile:
	default:
		errs = append(errs, fmt.Errorf("source.mode %q: want auto, gtid or file", c.Mode))
	}
	if c.StartAt != StartEarliest && c.StartAt != StartLatest {
		if _, err := rowtide.ParsePosition(c.StartAt); err != nil {
			errs = append(errs, fmt.Errorf("source.start_at %q: want earliest, latest or FILE:POS", c.StartAt))
		}
	}
	if c.ReadTimeout < 2*c.Heartbeat {
		errs = append(errs, fmt.Errorf("source.read_timeout %s is below two heartbeats of %s: an idle server would look dead", c.ReadTimeout, c.Heartbeat))
	}
	if _, err := c.tlsConfig(); err != nil {
		errs = append(errs, err)
	}
	if c.HeartbeatRow != 0 && c.HeartbeatRow < 10*time.Millisecond {
		errs = append(errs, fmt.Errorf("source.heartbeat_row %s: want 0 for none, or at least 10ms", c.HeartbeatRow))
	}
	return errors.Join(append(errs, c.Backfill.validate())...)
}

func (c BackfillConfig) validate() error {
	var errs []error
	if strings.ContainsAny(c.Schema, ".`") {
		errs = append(errs, fmt.Errorf("source.backfill.schema %q: want the name of a schema, without dots and quotes", c.Schema))
	}
	if c.Chunk < time.Millisecond || c.Chunk > 10*time.Second {
		errs = append(errs, fmt.Errorf("source.backfill.chunk %s: want 1ms to 10s", c.Chunk))
	}
	if c.Rate < 0 {
		errs = append(errs, fmt.Errorf("source.backfill.rate %d: want rows per second, or 0 for no limit", c.Rate))
	}
	return errors.Join(errs...)
}

func (c Config) hostPort() (string, uint16, error) {
	if c.Addr == "" {
		return "", 0, errors.New("source.addr is missing: give the server's host:port")
	}
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return "", 0, fmt.Errorf("source.addr %q: want host:port", c.Addr)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("source.addr %q: port must be 1 to 65535", c.Addr)
	}
	return host, uint16(n), nil
}

func (c Config) tlsConfig() (*tls.Config, error) {
	host, _, _ := net.SplitHostPort(c.Addr)
	out := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	switch c.TLS {
	case "", "off":
		return nil, nil //nolint:nilnil // no TLS is not an error, and nil is how go-mysql spells it
	case "on":
	case "skip-verify":
		out.InsecureSkipVerify = true
	default:
		return nil, fmt.Errorf("source.tls %q: want off, on or skip-verify", c.TLS)
	}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("source.tls_ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("source.tls_ca %s holds no PEM certificate", c.TLSCA)
		}
	}
	return out, nil
}
