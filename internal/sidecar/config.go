package sidecar

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"
)

// Off in the place of an address serves nothing there.
const Off = "off"

// The defaults of [Config]. The addresses are loopback: nothing there is
// encrypted.
const (
	DefaultListen         = "127.0.0.1:6390"
	DefaultHTTP           = "127.0.0.1:8079"
	DefaultSocketMode     = "0660"
	DefaultMaxMemory      = 256 << 20
	DefaultMaxConnections = 10_000
	DefaultMaxKeys        = 1_000
	DefaultMaxRequest     = 1 << 20
	DefaultIdleTimeout    = time.Hour
	DefaultWriteTimeout   = 10 * time.Second
)

// The ways to begin while Redis or Kafka cannot be used.
const (
	AwayFail     = "fail"
	AwayWait     = "wait"
	AwayDegraded = "degraded"
)

// Config is what an operator writes about a sidecar.
type Config struct {
	// Listen is host:port for Redis's protocol, or off.
	//
	// Defaults to DefaultListen.
	Listen string `mapstructure:"listen"`
	// Socket is the path of a Unix socket for Redis's protocol; empty is none.
	Socket string `mapstructure:"socket"`
	// SocketMode is the socket's permission bits in octal.
	//
	// Defaults to DefaultSocketMode.
	SocketMode string `mapstructure:"socket_mode"`
	// HTTP is host:port for HTTP, or off.
	//
	// Defaults to DefaultHTTP.
	HTTP string `mapstructure:"http"`
	// Expose allows addresses that are not loopback. They need a password.
	Expose bool `mapstructure:"expose"`
	// Password is what AUTH, or HTTP's "Authorization: Bearer" or Basic, must give;
	// empty wants none.
	Password string `mapstructure:"password"`
	// PasswordFile is read at start when Password is empty.
	PasswordFile string `mapstructure:"password_file"`
	// Away is what to do while Redis or Kafka cannot be used at the start: end with an
	// error (fail), serve nothing until they can (wait), or serve what the file's
	// modules have in Redis, marked, until the bus is found (degraded).
	//
	// Defaults to fail.
	Away string `mapstructure:"away"`
	// MaxMemory bounds the local values in bytes.
	//
	// Defaults to 256 MiB.
	MaxMemory int `mapstructure:"max_memory"`
	// MaxConnections of Redis's protocol; one more is refused.
	//
	// Defaults to DefaultMaxConnections.
	MaxConnections int `mapstructure:"max_connections"`
	// MaxKeys of one command or HTTP batch.
	//
	// Defaults to DefaultMaxKeys.
	MaxKeys int `mapstructure:"max_keys"`
	// MaxRequest is the most bytes of one request.
	//
	// Defaults to 1 MiB.
	MaxRequest int `mapstructure:"max_request"`
	// IdleTimeout ends a connection that asks nothing.
	//
	// Defaults to DefaultIdleTimeout.
	IdleTimeout time.Duration `mapstructure:"idle_timeout"`
	// WriteTimeout ends a connection that does not take a reply.
	//
	// Defaults to DefaultWriteTimeout.
	WriteTimeout time.Duration `mapstructure:"write_timeout"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (c Config) WithDefaults() Config {
	c.Listen = cmp.Or(c.Listen, DefaultListen)
	c.SocketMode = cmp.Or(c.SocketMode, DefaultSocketMode)
	c.HTTP = cmp.Or(c.HTTP, DefaultHTTP)
	c.Away = cmp.Or(c.Away, AwayFail)
	c.MaxMemory = cmp.Or(c.MaxMemory, DefaultMaxMemory)
	c.MaxConnections = cmp.Or(c.MaxConnections, DefaultMaxConnections)
	c.MaxKeys = cmp.Or(c.MaxKeys, DefaultMaxKeys)
	c.MaxRequest = cmp.Or(c.MaxRequest, DefaultMaxRequest)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, DefaultIdleTimeout)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, DefaultWriteTimeout)
	return c
}

// Validate reports every fault of a config with defaults, joined.
func (c Config) Validate() error {
	var errs []error
	for _, a := range []struct{ key, addr string }{{"node.listen", c.Listen}, {"node.http", c.HTTP}} {
		errs = append(errs, c.checkAddr(a.key, a.addr))
	}
	if c.Listen == Off && c.HTTP == Off && c.Socket == "" {
		errs = append(errs, errors.New("node.listen: it is off like node.http, and there is no node.socket; serve at least one"))
	}
	if _, err := c.mode(); err != nil {
		errs = append(errs, fmt.Errorf("node.socket_mode %q: want permission bits in octal, such as \"0660\"", c.SocketMode))
	}
	if !slices.Contains([]string{AwayFail, AwayWait, AwayDegraded}, c.Away) {
		errs = append(errs, fmt.Errorf("node.away %q: want fail, wait or degraded", c.Away))
	}
	for _, n := range []struct {
		key             string
		n, least, large int
	}{
		{"node.max_memory", c.MaxMemory, 1 << 20, 1 << 40},
		{"node.max_connections", c.MaxConnections, 1, 1 << 20},
		{"node.max_keys", c.MaxKeys, 1, 100_000},
		{"node.max_request", c.MaxRequest, 16 << 10, 512 << 20},
	} {
		if n.n < n.least || n.n > n.large {
			errs = append(errs, fmt.Errorf("%s %d: want %d to %d", n.key, n.n, n.least, n.large))
		}
	}
	if c.IdleTimeout < time.Second {
		errs = append(errs, fmt.Errorf("node.idle_timeout %s: want at least 1s", c.IdleTimeout))
	}
	if c.WriteTimeout < 10*time.Millisecond {
		errs = append(errs, fmt.Errorf("node.write_timeout %s: want at least 10ms", c.WriteTimeout))
	}
	return errors.Join(errs...)
}

// checkAddr refuses an address that others can reach, unless that is asked for
// and they must know a password.
func (c Config) checkAddr(key, addr string) error {
	if addr == Off {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s %q: want host:port, or %s", key, addr, Off)
	}
	ip := net.ParseIP(host)
	switch {
	case host == "localhost" || ip != nil && ip.IsLoopback():
		return nil
	case !c.Expose:
		return fmt.Errorf("%s %q is not loopback: other machines could read everything; listen on 127.0.0.1, or set node.expose and a password", key, addr)
	case c.Password == "" && c.PasswordFile == "":
		return fmt.Errorf("%s %q is not loopback and there is no password: set node.password or node.password_file", key, addr)
	}
	return nil
}

func (c Config) mode() (uint32, error) {
	n, err := strconv.ParseUint(c.SocketMode, 8, 32)
	if err == nil && n > 0o777 {
		err = strconv.ErrRange
	}
	return uint32(n), err
}
