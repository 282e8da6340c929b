package testenv

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"slices"
	"strings"
)

// The environment variables through which the testservers command tells a test
// where the shared servers are (host:port each), and how complete they are.
const (
	EnvMariaDB = "ROWTIDE_TEST_MARIADB"
	EnvMySQL   = "ROWTIDE_TEST_MYSQL"
	EnvRedis   = "ROWTIDE_TEST_REDIS"
	EnvKafka   = "ROWTIDE_TEST_KAFKA"
	// EnvDegraded lists, separated by commas, the parts that could not be
	// downloaded: "mysql", "redis" (8) and "valkey" are absent then, "kafka" is an
	// in-process broker.
	EnvDegraded = "ROWTIDE_TEST_DEGRADED"
	// EnvStrict set to "1" makes a degraded run a failure.
	EnvStrict = "ROWTIDE_TEST_STRICT"
)

const howToRun = "run make test (or `go run ./internal/testenv/testservers -- go test -tags integration ./...`)"

// TB is the part of testing.TB used here. It keeps package testing out of the
// rowtide binary, which contains this package for the sake of `rowtide demo`.
type TB interface {
	Helper()
	Name() string
	Cleanup(f func())
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// MariaDB returns the shared MariaDB server. Without one the test fails.
func MariaDB(t TB) SQLTarget {
	t.Helper()
	return SQLTarget{Flavor: FlavorMariaDB, Addr: shared(t, "MariaDB", EnvMariaDB), User: "root"}
}

// MySQL returns the shared MySQL server. Without one the test fails; it is
// skipped only in a degraded run, which ends by saying so in capitals.
func MySQL(t TB) SQLTarget {
	t.Helper()
	if Degraded("mysql") && os.Getenv(EnvMySQL) == "" {
		if os.Getenv(EnvStrict) == "1" {
			t.Fatalf("MySQL could not be installed and %s=1 forbids to go without", EnvStrict)
		}
		t.Skipf("MySQL could not be installed on this machine")
	}
	return SQLTarget{Flavor: FlavorMySQL, Addr: shared(t, "MySQL", EnvMySQL), User: "root"}
}

// SQLServers returns the shared server of every flavour, for a subtest each.
func SQLServers(t TB) []SQLTarget {
	t.Helper()
	targets := []SQLTarget{MariaDB(t)}
	if Degraded("mysql") && os.Getenv(EnvStrict) != "1" {
		return targets
	}
	return append(targets, MySQL(t))
}

// Redis returns the shared Redis server's host:port. Without one the test fails.
func Redis(t TB) string {
	t.Helper()
	return shared(t, "Redis", EnvRedis)
}

// Kafka returns the addresses of the shared Kafka. Without one the test fails.
// In a degraded run it is an in-process broker of the testservers command.
func Kafka(t TB) []string {
	t.Helper()
	return strings.Split(shared(t, "Kafka", EnvKafka), ",")
}

// Degraded reports whether a part could not be downloaded for this test run.
func Degraded(part string) bool {
	return slices.Contains(strings.Split(os.Getenv(EnvDegraded), ","), part)
}

func shared(t TB, name, env string) string {
	t.Helper()
	addr := os.Getenv(env)
	if addr == "" {
		t.Fatalf("this test needs %s, and %s is not set: %s", name, env, howToRun)
	}
	return addr
}

// nameLimit keeps a name within MySQL's 64 bytes for a schema, with room for a
// suffix of the test's own.
const nameLimit = 48

// UniqueName returns a name for a schema, topic or key prefix that no other
// test, process or run uses: prefix, what fits of the test's name, and chance.
// It holds only lower-case letters, digits and underscores, so it needs no
// quoting anywhere.
func UniqueName(t TB, prefix string) string {
	const chance = 4 // bytes; 4 billion names are enough for one server's life
	b := make([]byte, chance)
	if _, err := rand.Read(b); err != nil {
		t.Fatalf("make a unique name: %v", err)
	}
	suffix := "_" + hex.EncodeToString(b)
	name := plain(prefix + "_" + t.Name())
	if most := nameLimit - len(suffix); len(name) > most {
		name = name[:most]
	}
	return name + suffix
}

// plain maps everything but letters and digits to underscores.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + ('a' - 'A')
		default:
			return '_'
		}
	}, s)
}
