package testenv_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
)

// fakeT records how a test would have ended.
type fakeT struct {
	name          string
	fatal, skippd string
}

type ended struct{}

func (*fakeT) Helper()        {}
func (*fakeT) Cleanup(func()) {}
func (f *fakeT) Name() string { return f.name }
func (f *fakeT) Fatalf(format string, args ...any) {
	f.fatal = fmt.Sprintf(format, args...)
	panic(ended{})
}

func (f *fakeT) Skipf(format string, args ...any) {
	f.skippd = fmt.Sprintf(format, args...)
	panic(ended{})
}

func (f *fakeT) run(body func(testenv.TB)) {
	defer func() {
		if r := recover(); r != nil && r != any(ended{}) {
			panic(r)
		}
	}()
	body(f)
}

func clearEnv(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		testenv.EnvMariaDB, testenv.EnvMySQL, testenv.EnvRedis, testenv.EnvKafka,
		testenv.EnvDegraded, testenv.EnvStrict,
	} {
		t.Setenv(name, "")
	}
}

func TestShared_MissingServerFailsAndSaysHowToRun(t *testing.T) {
	for name, get := range map[string]func(testenv.TB){
		"MariaDB":    func(t testenv.TB) { testenv.MariaDB(t) },
		"MySQL":      func(t testenv.TB) { testenv.MySQL(t) },
		"SQLServers": func(t testenv.TB) { testenv.SQLServers(t) },
		"Redis":      func(t testenv.TB) { testenv.Redis(t) },
		"Kafka":      func(t testenv.TB) { testenv.Kafka(t) },
	} {
		t.Run(name, func(t *testing.T) {
			clearEnv(t)
			f := &fakeT{}
			f.run(get)
			if !strings.Contains(f.fatal, "run make test") || f.skippd != "" {
				t.Fatalf("fatal=%q skip=%q, want a failure naming make test", f.fatal, f.skippd)
			}
		})
	}
}

func TestShared_DegradedRunGoesWithoutMySQLUnlessStrict(t *testing.T) {
	clearEnv(t)
	t.Setenv(testenv.EnvMariaDB, "127.0.0.1:1")
	t.Setenv(testenv.EnvDegraded, "kafka,mysql")

	if got, want := len(testenv.SQLServers(t)), 1; got != want {
		t.Errorf("degraded: %d SQL servers, want %d", got, want)
	}
	f := &fakeT{}
	f.run(func(t testenv.TB) { testenv.MySQL(t) })
	if f.skippd == "" {
		t.Errorf("degraded: MySQL did not skip (fatal=%q)", f.fatal)
	}

	t.Setenv(testenv.EnvStrict, "1")
	for name, get := range map[string]func(testenv.TB){
		"MySQL":      func(t testenv.TB) { testenv.MySQL(t) },
		"SQLServers": func(t testenv.TB) { testenv.SQLServers(t) },
	} {
		f := &fakeT{}
		f.run(get)
		if f.fatal == "" {
			t.Errorf("strict: %s did not fail", name)
		}
	}
}

func TestSQLServers_ReturnsBothFlavors(t *testing.T) {
	clearEnv(t)
	t.Setenv(testenv.EnvMariaDB, "127.0.0.1:1")
	t.Setenv(testenv.EnvMySQL, "127.0.0.1:2")
	targets := testenv.SQLServers(t)
	if len(targets) != 2 || targets[0].Flavor != "mariadb" || targets[1].Flavor != "mysql" {
		t.Fatalf("targets=%+v, want mariadb and mysql", targets)
	}
	if got, want := targets[1].DSN("shop"), "root@tcp(127.0.0.1:2)/shop"; got != want {
		t.Errorf("DSN=%q, want %q", got, want)
	}
}

func TestUniqueName_IsPlainShortAndNew(t *testing.T) {
	f := &fakeT{name: "TestÜber/Sub-Test_" + strings.Repeat("long", 30)}
	shape := regexp.MustCompile(`^[a-z0-9_]{1,48}$`)
	seen := map[string]bool{}
	for range 1000 {
		name := testenv.UniqueName(f, "Shop")
		if !shape.MatchString(name) || !strings.HasPrefix(name, "shop_test") {
			t.Fatalf("name=%q", name)
		}
		if seen[name] {
			t.Fatalf("name %q came twice", name)
		}
		seen[name] = true
	}
}

func TestStart_MissingProgramIsErrNotInstalled(t *testing.T) {
	t.Setenv("ROWTIDE_CACHE", t.TempDir())
	_, err := testenv.StartKafka(t.Context(), testenv.Options{Dir: t.TempDir()})
	if !errors.Is(err, testenv.ErrNotInstalled) || !strings.Contains(err.Error(), "make setup") {
		t.Fatalf("err=%v, want ErrNotInstalled naming make setup", err)
	}
}
