package testenv

import (
	"errors"
	"os"
)

// RedisProgram is one server that speaks Redis's protocol.
type RedisProgram struct {
	// Name is for subtests: "Redis", "Redis8" or "Valkey9".
	Name string
	// Bin goes into [Options].
	Bin string
}

// RedisPrograms returns the system's Redis and the newer servers that `make
// setup` unpacked, for a subtest each. A missing one fails the test in strict
// mode; elsewhere the testservers command says in capitals what was left out.
func RedisPrograms(t TB) []RedisProgram {
	t.Helper()
	bin, ok := find("redis-server")
	if !ok {
		t.Fatalf("%v", notInstalled("Redis"))
	}
	all := []RedisProgram{{Name: "Redis", Bin: bin}}
	for _, p := range []struct{ name, part, program string }{
		{"Redis8", "redis", "redis-server"},
		{"Valkey9", "valkey", "valkey-server"},
	} {
		bin, _, err := cached(p.part, p.program)
		switch {
		case err == nil:
			all = append(all, RedisProgram{Name: p.name, Bin: bin})
		case !errors.Is(err, os.ErrNotExist):
			t.Fatalf("find %s: %v", p.name, err)
		case Missing(p.part) == "":
			t.Fatalf("%v", notInstalled(p.name))
		case os.Getenv(EnvStrict) == "1":
			t.Fatalf("%s could not be installed (%s), and %s=1 forbids to go without", p.name, Missing(p.part), EnvStrict)
		}
	}
	return all
}
