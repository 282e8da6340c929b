package stockapi

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// scripts are the operations on a cell. Each is the prelude and its own file.
type scripts struct {
	hold, confirm, cancel, expire, load, snapshot, publish *redis.Script
}

func newScripts() *scripts {
	one := func(op string) *redis.Script {
		return redis.NewScript(mustLua("prelude") + mustLua(op))
	}
	return &scripts{
		hold: one("hold"), confirm: one("confirm"), cancel: one("cancel"), expire: one("expire"),
		load: one("load"), snapshot: one("snapshot"), publish: one("publish"),
	}
}

// mustLua panics only if the build left a file out.
func mustLua(name string) string {
	b, err := fs.ReadFile(luaFiles, "lua/"+name+".lua")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// warm puts the scripts into the server's cache, so that the first buyers of a
// rush do not all send the source.
func (s *scripts) warm(ctx context.Context, rdb redis.Scripter) error {
	for _, sc := range []*redis.Script{s.hold, s.confirm, s.cancel, s.expire} {
		if err := sc.Load(ctx, rdb).Err(); err != nil {
			return fmt.Errorf("load script: %w", err)
		}
	}
	return nil
}

// run calls a script once: EVALSHA, and EVAL when the server does not know it
// (restart, failover). The reply has at least one element.
func run(ctx context.Context, rdb redis.Scripter, s *redis.Script, keys []string, args ...any) ([]string, error) {
	reply, err := s.Run(ctx, rdb, keys, args...).StringSlice()
	if err != nil {
		return nil, err
	}
	if len(reply) == 0 {
		return nil, errors.New("empty reply")
	}
	return reply, nil
}

// definite tells an error that Redis itself answered from one that leaves open
// whether the script ran.
func definite(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// noWrites are the first words of errors by which Redis refuses the first write of a
// script, and so all of it, for a while.
var noWrites = []string{"LOADING", "READONLY", "OOM", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MISCONF"}

// unavailable makes a refusal of such an error and leaves others as they are.
func unavailable(err error) error {
	for _, word := range noWrites {
		if redis.HasErrorPrefix(err, word) {
			return fmt.Errorf("%w: %w", &RefusalError{Code: CodeUnavailable, Detail: word}, err)
		}
	}
	return err
}

// CheckRedis refuses a client that would run a script a second time by itself
// after a lost reply. The scripts bear repetition; but a repetition must be ours
// to see, and a client that retries INCRs elsewhere in the same program is a trap.
// Set MaxRetries: -1.
func CheckRedis(rdb redis.UniversalClient) error {
	var retries int
	switch c := rdb.(type) {
	case *redis.Client:
		retries = c.Options().MaxRetries
	case *redis.ClusterClient:
		retries = c.Options().MaxRetries
	default:
		return fmt.Errorf("stock: redis client of type %T cannot be checked for retries", rdb)
	}
	if retries > 0 {
		return fmt.Errorf("stock: redis client repeats commands %d times; set MaxRetries: -1", retries)
	}
	return nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// atoi reads a number that a script wrote.
func atoi(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read number from redis: %w", err)
	}
	return n, nil
}
