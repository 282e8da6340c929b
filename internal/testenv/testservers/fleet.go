package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

var allServers = []string{"mariadb", "mysql", "redis", "kafka"}

// fleet is the servers of one run.
type fleet struct {
	mu       sync.Mutex // guards the fields below while the servers start
	env      []string
	stops    []func(context.Context) error
	names    []string // with versions, for the summary
	degraded []string
	took     time.Duration
}

// startFleet starts the named servers side by side. If one cannot start, all
// are stopped again.
func startFleet(ctx context.Context, dir string, names []string) (*fleet, error) {
	begin := time.Now()
	f := &fleet{}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		if !slices.Contains(allServers, name) {
			return nil, fmt.Errorf("no server is called %q; there are %s", name, strings.Join(allServers, ", "))
		}
		wg.Go(func() { errs[i] = f.start(ctx, name, filepath.Join(dir, name)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	slices.Sort(f.names)
	f.took = time.Since(begin)
	return f, nil
}

func (f *fleet) start(ctx context.Context, name, dir string) error {
	o := testenv.Options{Dir: dir}
	switch name {
	case "mariadb":
		s, err := testenv.StartMariaDB(ctx, o)
		if err != nil {
			return err
		}
		f.add(testenv.EnvMariaDB, s.Addr, "MariaDB "+s.Version, s.Stop)
	case "mysql":
		s, err := testenv.StartMySQL(ctx, o)
		if errors.Is(err, testenv.ErrNotInstalled) && testenv.Missing("mysql") != "" {
			return f.degrade("mysql")
		}
		if err != nil {
			return err
		}
		f.add(testenv.EnvMySQL, s.Addr, "MySQL "+s.Version, s.Stop)
	case "redis":
		s, err := testenv.StartRedis(ctx, o)
		if err != nil {
			return err
		}
		f.add(testenv.EnvRedis, s.Addr, "Redis", s.Stop)
		// Tests start the newer ones themselves.
		for _, part := range []string{"redis", "valkey"} {
			if testenv.Missing(part) == "" {
				continue
			}
			if err := f.degrade(part); err != nil {
				return err
			}
		}
	case "kafka":
		return f.startKafka(ctx, o)
	}
	return nil
}

func (f *fleet) startKafka(ctx context.Context, o testenv.Options) error {
	s, err := testenv.StartKafka(ctx, o)
	if err == nil {
		f.add(testenv.EnvKafka, s.Addr, "Apache Kafka "+s.Version, s.Stop)
		return nil
	}
	if !errors.Is(err, testenv.ErrNotInstalled) || testenv.Missing("kafka") == "" {
		return err
	}
	if err := f.degrade("kafka"); err != nil {
		return err
	}
	fake, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		return err
	}
	f.add(testenv.EnvKafka, fake.Brokers()[0], "an in-process Kafka", func(context.Context) error {
		fake.Close()
		return nil
	})
	return nil
}

func (f *fleet) add(env, addr, name string, stop func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.env = append(f.env, env+"="+addr)
	f.names = append(f.names, name)
	f.stops = append(f.stops, stop)
}

// degrade notes that a part could not be downloaded, unless that is forbidden.
func (f *fleet) degrade(part string) error {
	if os.Getenv(testenv.EnvStrict) == "1" {
		return fmt.Errorf("%s could not be installed (%s), and %s=1 forbids to go without",
			strings.ToUpper(part), testenv.Missing(part), testenv.EnvStrict)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.degraded = append(f.degraded, part)
	return nil
}

// stop ends all servers side by side.
func (f *fleet) stop() error {
	errs := make([]error, len(f.stops))
	var wg sync.WaitGroup
	for i, stop := range f.stops {
		wg.Go(func() { errs[i] = stop(context.Background()) })
	}
	wg.Wait()
	f.stops = nil
	return errors.Join(errs...)
}

// environ is what the command finds the servers by.
func (f *fleet) environ() []string {
	return append(slices.Clone(f.env), testenv.EnvDegraded+"="+strings.Join(f.degraded, ","))
}

func (f *fleet) summary() string {
	return fmt.Sprintf("%s are up after %.1f s", strings.Join(f.names, ", "), f.took.Seconds())
}

// notices says in capitals what this run did without.
func (f *fleet) notices() []string {
	text := map[string]string{
		"kafka":  "DEGRADED: APACHE KAFKA COULD NOT BE INSTALLED; THE KAFKA TESTS RAN AGAINST AN IN-PROCESS BROKER",
		"redis":  "DEGRADED: REDIS 8 COULD NOT BE INSTALLED; THE TESTS OF SEVERAL REDIS SERVERS RAN WITHOUT IT",
		"valkey": "DEGRADED: VALKEY COULD NOT BE INSTALLED; THE TESTS OF SEVERAL REDIS SERVERS RAN WITHOUT IT",
		"mysql":  "DEGRADED: MYSQL COULD NOT BE INSTALLED; THE MYSQL TESTS RAN ON MARIADB ALONE",
	}
	var lines []string
	for _, part := range f.degraded {
		lines = append(lines, text[part])
	}
	return lines
}

// workDir returns the servers' folder and what removes it.
func workDir(dir string) (string, func() error, error) {
	if dir != "" {
		dir, err := filepath.Abs(dir)
		return dir, func() error { return nil }, err
	}
	dir, err := testenv.TempDir("testservers")
	return dir, func() error { return os.RemoveAll(dir) }, err
}
