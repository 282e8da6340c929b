package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Error is what is wrong with a config file; exit code 2.
type Error struct {
	// File is the path as it was given.
	File string
	// Err holds all faults, joined.
	Err error
}

func (e *Error) Error() string {
	faults := strings.Split(e.Err.Error(), "\n")
	if len(faults) == 1 {
		return fmt.Sprintf("config %s: %s", e.File, faults[0])
	}
	return fmt.Sprintf("config %s has %d faults:\n  %s", e.File, len(faults), strings.Join(faults, "\n  "))
}

func (e *Error) Unwrap() error { return e.Err }

// Load reads the daemon's file, lays the environment over it, fills in defaults
// and validates. A variable is ROWTIDE_ and the key's path in capitals, joined by
// _: ROWTIDE_SOURCE_PASSWORD. Lists are comma-separated there; modules come from
// the file only. Every error is an [*Error].
func Load(path string) (Config, error) {
	var c Config
	v, err := decode(path, &c)
	if err == nil {
		err = errors.Join(
			readSecret(&c.Source.Password, c.Source.PasswordFile, "source.password_file"),
			readSecret(&c.Redis.Password, c.Redis.PasswordFile, "redis.password_file"),
		)
	}
	if err != nil {
		return Config{}, &Error{File: path, Err: err}
	}
	if !v.IsSet("http.listen") {
		c.HTTP.Listen = DefaultListen
	}
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return Config{}, &Error{File: path, Err: err}
	}
	return c, nil
}

// LoadStock is [Load] for the stock API's file.
func LoadStock(path string) (Stock, error) {
	var c Stock
	v, err := decode(path, &c)
	if err == nil {
		err = errors.Join(
			readSecret(&c.DB.Password, c.DB.PasswordFile, "db.password_file"),
			readSecret(&c.Redis.Password, c.Redis.PasswordFile, "redis.password_file"),
		)
	}
	if err != nil {
		return Stock{}, &Error{File: path, Err: err}
	}
	if !v.IsSet("http.listen") {
		c.HTTP.Listen = DefaultStockListen
	}
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return Stock{}, &Error{File: path, Err: err}
	}
	return c, nil
}

// decode fills out, a pointer to a config, from the file and the environment.
func decode(path string, out any) (*viper.Viper, error) {
	v := viper.New()
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	if err := v.ReadInConfig(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errors.New("no such file; README.md shows a first one")
		}
		return nil, fmt.Errorf("not readable as YAML: %w", err)
	}
	v.SetEnvPrefix("ROWTIDE")
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	t := reflect.TypeOf(out).Elem()
	// Viper asks the environment only for keys that it knows.
	for _, key := range leafKeys(t, "") {
		if err := v.BindEnv(key); err != nil {
			return nil, fmt.Errorf("bind %s: %w", key, err)
		}
	}
	hook := mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(","), fits)
	err := v.UnmarshalExact(out, viper.DecodeHook(hook))
	if err != nil {
		err = decodeFaults(t, err)
	}
	// Viper does not show a section that is empty, so it cannot be misspelt to it.
	return v, errors.Join(err, emptySections(t, path))
}

// emptySections reports the unknown keys of the file's top level that hold
// nothing.
func emptySections(t reflect.Type, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var top map[string]any
	if err := yaml.Unmarshal(b, &top); err != nil {
		return fmt.Errorf("not readable as YAML: %w", err)
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(top)) {
		_, known := field(t, strings.ToLower(key))
		section, isMap := top[key].(map[string]any)
		if empty := top[key] == nil || isMap && len(section) == 0; empty && !known {
			errs = append(errs, unknownKey(t, key, key))
		}
	}
	return errors.Join(errs...)
}

func field(t reflect.Type, tag string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("mapstructure") == tag {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func unknownKey(t reflect.Type, path, key string) error {
	return fmt.Errorf("%s is not a known key%s", path, suggest(t, key))
}

// fits refuses numbers that the decoder would bend to the field: negative ones
// and ones that are too large would wrap around, and a bare number would be so
// many nanoseconds.
func fits(_, to reflect.Type, in any) (any, error) {
	n, ok := in.(int)
	if !ok {
		return in, nil
	}
	if to == reflect.TypeFor[time.Duration]() && n != 0 {
		return nil, fmt.Errorf("%d: want a duration with its unit, such as %ds", n, n)
	}
	v := reflect.New(to).Elem()
	if v.CanUint() && (n < 0 || v.OverflowUint(uint64(n))) || v.CanInt() && v.OverflowInt(int64(n)) {
		return nil, fmt.Errorf("%d is out of range", n)
	}
	return in, nil
}

// leafKeys lists the dotted paths of all fields that are no lists of structs.
func leafKeys(t reflect.Type, prefix string) []string {
	var out []string
	for f := range t.Fields() {
		tag := f.Tag.Get("mapstructure")
		key := prefix + tag
		switch {
		case tag == "-":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, leafKeys(f.Type, key+".")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
		default:
			out = append(out, key)
		}
	}
	return out
}

// decodeFaults rewords the decoder's findings: what users meet here is a
// misspelt key or a value of the wrong kind.
func decodeFaults(t reflect.Type, err error) error {
	var errs []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "*"))
		if line == "" || strings.HasPrefix(line, "decoding failed due to") {
			continue
		}
		line = strings.TrimPrefix(line, "1 error(s) decoding: ")
		if where, keys, ok := strings.Cut(line, " has invalid keys: "); ok {
			where = strings.Trim(where, "'")
			for key := range strings.SplitSeq(keys, ", ") {
				errs = append(errs, unknownKey(t, strings.TrimPrefix(where+"."+key, "."), key))
			}
			continue
		}
		errs = append(errs, errors.New(line))
	}
	return errors.Join(errs...)
}

// suggest names the known key that is closest to a misspelt one, if any is
// within two edits.
func suggest(t reflect.Type, key string) string {
	best, distance := "", min(3, len(key))
	for _, known := range knownKeys(t, nil) {
		if d := edits(key, known); d < distance {
			best, distance = known, d
		}
	}
	if best == "" {
		return "; remove it, or see docs/configuration.md"
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

func knownKeys(t reflect.Type, out []string) []string {
	for f := range t.Fields() {
		if tag := f.Tag.Get("mapstructure"); tag != "-" {
			out = append(out, tag)
		}
		ft := f.Type
		for ft.Kind() == reflect.Slice || ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			out = knownKeys(ft, out)
		}
	}
	return out
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}
