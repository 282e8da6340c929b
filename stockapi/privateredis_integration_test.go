//go:build integration

package stockapi_test

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// privateRedis is a server that the test may reconfigure.
func privateRedis(t *testing.T) (*redis.Client, *redis.Options) {
	t.Helper()
	srv, err := testenv.StartRedis(t.Context(), testenv.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop(context.Background()) })
	opt := &redis.Options{Addr: srv.Addr, MaxRetries: -1}
	rdb := redis.NewClient(opt)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb, opt
}

func TestPreflight_EvictionPolicy(t *testing.T) {
	rdb, opt := privateRedis(t)
	if err := rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		user, acl string
		warns     bool
	}{
		{"full", "+@all", false},
		{"noconfig", "+@all -config", false}, // INFO tells it too
		{"nothing", "+@all -config -info", true},
	} {
		rules := append([]string{"on", "nopass", "~*", "&*"}, strings.Fields(tc.acl)...)
		if err := rdb.ACLSetUser(t.Context(), tc.user, rules...).Err(); err != nil {
			t.Fatal(err)
		}
		as := redis.NewClient(&redis.Options{Addr: opt.Addr, MaxRetries: -1, Username: tc.user, Password: "any"})
		warnings, err := stockapi.Preflight(t.Context(), as, nil)
		if got := len(warnings) > 0; got != tc.warns || (err == nil) != tc.warns {
			t.Errorf("%s: warnings %v, error %v", tc.user, warnings, err)
		}
		if err != nil && !strings.Contains(err.Error(), "CONFIG SET maxmemory-policy noeviction") {
			t.Errorf("%s: the error does not say what mends it: %v", tc.user, err)
		}
		if err := as.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestHold_FullMemoryIsARefusalThatWritesNothing(t *testing.T) {
	rdb, _ := privateRedis(t)
	s := newShopOn(t, rdb, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 5})
	before := s.dump(t)
	set := func(limit string) {
		t.Helper()
		if err := rdb.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	if _, err := s.Hold(t.Context(), want("u", "k", item("A", 1))); stockapi.RefusalCode(err) != stockapi.CodeUnavailable {
		t.Fatalf("hold with full memory: %v, want unavailable", err)
	}
	set("0")
	if !sameDump(before, s.dump(t)) {
		t.Fatal("the refusal changed something in redis")
	}
	s.mustHold(t, want("u", "k", item("A", 1)))
}

func TestHold_ScriptCacheLost(t *testing.T) {
	rdb, _ := privateRedis(t)
	s := newShopOn(t, rdb, stockapi.Config{})
	s.load(t, "E", map[string]int64{"A": 5})
	if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	h := s.mustHold(t, want("u", "k", item("A", 1)))
	if _, err := s.Cancel(t.Context(), h.ID, ""); err != nil {
		t.Fatal(err)
	}
}
