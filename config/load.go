package config

import (
	"fmt"
	"iter"
	"os"
	"reflect"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

const envPrefix = "ROWTIDE"

// Load reads the daemon's file, lays the environment over it, fills in defaults
// and validates. A variable is ROWTIDE_ and the key's path in capitals, joined by
// _: ROWTIDE_SOURCE_PASSWORD. Lists are comma-separated there; modules come from
// the file only. Every error is an [*Error] that holds all faults.
func Load(path string) (Config, error) {
	return load(path, func(c *Config) error {
		return readSecret(&c.Source.Password, c.Source.PasswordFile, "source.password_file")
	}, Config.Validate)
}

// LoadNode is [Load] for `rowtide node`, which takes the same file, or one with no
// more than what it uses.
func LoadNode(path string) (Config, error) {
	return load(path, func(c *Config) error {
		err := readSecret(&c.Node.Password, c.Node.PasswordFile, "node.password_file")
		if err == nil && c.Node.PasswordFile != "" && c.Node.Password == "" {
			err = fmt.Errorf("node.password_file %s: the file is empty; write the password into it", c.Node.PasswordFile)
		}
		return err
	}, Config.validateNode)
}

func load(path string, secrets func(*Config) error, validate func(Config) error) (Config, error) {
	var c Config
	d := readDocument(path, reflect.TypeOf(c))
	v := d.decode(&c)
	d.addAll(secrets(&c))
	d.addAll(readSecret(&c.Redis.Password, c.Redis.PasswordFile, "redis.password_file"))
	d.addAll(readSecret(&c.Kafka.SASL.Password, c.Kafka.SASL.PasswordFile, "kafka.sasl.password_file"))
	if !v.IsSet("http.listen") {
		c.HTTP.Listen = DefaultListen
	}
	c = c.WithDefaults()
	if !d.broken {
		d.addAll(validate(c))
	}
	if err := d.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// LoadStock is [Load] for the stock API's file.
func LoadStock(path string) (Stock, error) {
	var c Stock
	d := readDocument(path, reflect.TypeOf(c))
	v := d.decode(&c)
	d.addAll(readSecret(&c.DB.Password, c.DB.PasswordFile, "db.password_file"))
	d.addAll(readSecret(&c.Redis.Password, c.Redis.PasswordFile, "redis.password_file"))
	if !v.IsSet("http.listen") {
		c.HTTP.Listen = DefaultStockListen
	}
	c = c.WithDefaults()
	if !d.broken {
		d.addAll(c.Validate())
	}
	if err := d.err(); err != nil {
		return Stock{}, err
	}
	return c, nil
}

// decode fills out, a pointer to a config, from the document and the environment,
// as far as they are without fault.
func (d *document) decode(out any) *viper.Viper {
	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	if err := v.MergeConfigMap(d.values); err != nil {
		d.fail(0, err)
	}
	// Viper asks the environment only for keys that it knows.
	for key, t := range variables(d.of, "", map[string]reflect.Type{}) {
		if text := os.Getenv(variable(key)); text != "" {
			if err := variableFault(text, t); err != nil {
				d.bad[key] = true
				d.faults = append(d.faults, Fault{File: d.path, Variable: variable(key), Err: err})
				continue
			}
		}
		if err := v.BindEnv(key); err != nil {
			d.fail(0, err)
		}
	}
	hook := mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(","))
	if err := v.Unmarshal(out, viper.DecodeHook(hook)); err != nil {
		d.fail(0, err)
	}
	return v
}

// settings yields the keys that a struct has in the file, with the types of their
// fields behind pointers.
func settings(t reflect.Type) iter.Seq2[string, reflect.Type] {
	return func(yield func(string, reflect.Type) bool) {
		for f := range t.Fields() {
			tag := f.Tag.Get("mapstructure")
			if tag == ",squash" {
				for key, ft := range settings(f.Type) {
					if !yield(key, ft) {
						return
					}
				}
				continue
			}
			if tag != "" && tag != "-" && !yield(tag, behind(f.Type)) {
				return
			}
		}
	}
}

func behind(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// setting is the type of the field that a key of t stands for, nil for none.
func setting(t reflect.Type, key string) reflect.Type {
	for k, ft := range settings(t) {
		if k == key {
			return ft
		}
	}
	return nil
}

// variables collects the dotted paths of all keys that the environment can give, with
// their types: those that are no sections and no lists of sections.
func variables(t reflect.Type, prefix string, out map[string]reflect.Type) map[string]reflect.Type {
	for key, ft := range settings(t) {
		switch {
		case ft.Kind() == reflect.Struct:
			variables(ft, prefix+key+".", out)
		case ft.Kind() == reflect.Slice && behind(ft.Elem()).Kind() == reflect.Struct:
		default:
			out[prefix+key] = ft
		}
	}
	return out
}
