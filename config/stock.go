package config

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/rowtide/rowtide/stockapi"
)

// DefaultStockListen is the stock API's address: loopback, since whatever
// authenticates buyers stands in front of it.
const DefaultStockListen = "127.0.0.1:8078"

// Stock is the whole of the stock API's configuration.
type Stock struct {
	DB    DB              `mapstructure:"db"`
	Redis Redis           `mapstructure:"redis"`
	Stock stockapi.Config `mapstructure:"stock"`
	HTTP  HTTP            `mapstructure:"http"`
	Log   Log             `mapstructure:"log"`
}

// DB is the MySQL or MariaDB server that holds the ledger.
type DB struct {
	// Addr is host:port. Required.
	Addr string `mapstructure:"addr"`
	// User needs SELECT, INSERT and UPDATE on the stock tables, and CREATE for the
	// first start. Required.
	User string `mapstructure:"user"`
	// Password may be given here, in ROWTIDE_DB_PASSWORD, or in a file.
	Password string `mapstructure:"password"`
	// PasswordFile is read at start when Password is empty.
	PasswordFile string `mapstructure:"password_file"`
	// Name is the database with the stock tables. Required.
	Name string `mapstructure:"name"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (c Stock) WithDefaults() Stock {
	if c.Redis.Prefix == "" {
		c.Redis.Prefix = stockapi.DefaultPrefix
	}
	if c.Redis.TLS == "" {
		c.Redis.TLS = "off"
	}
	c.Stock.Prefix = c.Redis.Prefix
	c.Stock = c.Stock.WithDefaults()
	if c.Log.Level == "" {
		c.Log.Level = "info"
	}
	if c.Log.Format == "" {
		c.Log.Format = "text"
	}
	return c
}

// Validate reports every fault of a config with defaults, joined.
func (c Stock) Validate() error {
	var errs []error
	if len(c.Stock.Kafka.Brokers) == 0 {
		errs = append(errs, errors.New("stock.kafka.brokers is missing: list at least one host:port"))
	}
	return errors.Join(append(errs, c.DB.validate(), c.Redis.validate(), c.stockFaults(), c.Log.validate())...)
}

func (d DB) validate() error {
	var errs []error
	if _, _, err := net.SplitHostPort(d.Addr); err != nil {
		errs = append(errs, fmt.Errorf("db.addr %q: want host:port of the MySQL or MariaDB server", d.Addr))
	}
	if d.User == "" {
		errs = append(errs, errors.New("db.user is missing: name the account that writes the ledger"))
	}
	if d.Name == "" {
		errs = append(errs, errors.New("db.name is missing: name the database that holds the stock tables"))
	}
	return errors.Join(errs...)
}

var limitFault = regexp.MustCompile(`^: (id|per|max) `)

// stockFaults gives the faults of the section stock, which speak of keys as the
// package does, the paths of the file.
func (c Stock) stockFaults() error {
	var errs []error
	for _, err := range leaves(c.Stock.Validate()) {
		text := strings.TrimPrefix(err.Error(), "stock: ")
		switch {
		case strings.HasPrefix(text, "prefix "):
			text = "redis." + text
		case strings.HasPrefix(text, "limit "):
			text = c.limitFault(text)
		case strings.HasPrefix(text, "at most "):
			text = "stock.limits: " + text
		default:
			text = "stock." + text
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// limitFault finds the limit that a sentence is about, of several with one id the
// last.
func (c Stock) limitFault(text string) string {
	for i, l := range slices.Backward(c.Stock.Limits) {
		if rest, ok := strings.CutPrefix(text, fmt.Sprintf("limit %q", l.ID)); ok {
			return fmt.Sprintf("stock.limits[%d] (%s)%s", i, l.ID, limitFault.ReplaceAllString(rest, ".$1 "))
		}
	}
	return "stock.limits: " + text
}
