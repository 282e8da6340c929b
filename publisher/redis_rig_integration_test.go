//go:build integration

package publisher_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// deployments are the ways to run Redis, each with processes of its own and a
// client as cmd makes it.
var deployments = map[string]func(*testing.T, testenv.Options) redis.UniversalClient{
	"standalone": func(t *testing.T, o testenv.Options) redis.UniversalClient {
		return universal(t, &redis.UniversalOptions{Addrs: []string{privateRedis(t, o).Addr}})
	},
	"sentinel": func(t *testing.T, o testenv.Options) redis.UniversalClient {
		s := privateSentinel(t, o)
		return universal(t, &redis.UniversalOptions{Addrs: s.Addrs(), MasterName: testenv.SentinelMaster})
	},
	"cluster": func(t *testing.T, o testenv.Options) redis.UniversalClient {
		return universal(t, &redis.UniversalOptions{Addrs: privateCluster(t, false, o).Addrs(), IsClusterMode: true})
	},
}

func privateSentinel(t *testing.T, o testenv.Options) *testenv.RedisSentinel {
	t.Helper()
	s, err := testenv.StartRedisSentinel(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, s.Stop)
	return s
}

func privateCluster(t *testing.T, replicas bool, o testenv.Options) *testenv.RedisCluster {
	t.Helper()
	c, err := testenv.StartRedisCluster(testContext(t), 3, replicas, o)
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, c.Stop)
	return c
}

func stopAtEnd(t *testing.T, stop func(context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		if err := stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// universal makes a client like the daemon's: no retries of its own.
func universal(t *testing.T, o *redis.UniversalOptions) redis.UniversalClient {
	t.Helper()
	logging.Disable()
	o.MaxRetries = -1
	rdb := redis.NewUniversalClient(o)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// plainModule is the one module that these tests keep in plain layout.
const plainModule = "legacy"

func withPlain() publisher.RedisOption {
	return publisher.WithLayout(func(module string) publisher.Layout {
		if module == plainModule {
			return publisher.LayoutPlain
		}
		return publisher.LayoutEnvelope
	})
}

// legacy is an entry in plain layout.
func legacy(id any, v rowtide.Version) rowtide.Entry {
	e := entry(id, v)
	e.Key.Module = plainModule
	return e
}

// checkHeld demands that Redis holds just these entries, in their layouts.
func checkHeld(t *testing.T, rdb redis.UniversalClient, prefix string, want []rowtide.Entry) {
	t.Helper()
	wrong := 0
	for part := range slices.Chunk(want, 1000) {
		values, beside := make([]*redis.StringCmd, len(part)), make([]*redis.StringCmd, len(part))
		_, _ = rdb.Pipelined(testContext(t), func(p redis.Pipeliner) error { // errors are looked at below
			for i, e := range part {
				values[i] = p.Get(t.Context(), e.Key.Redis(prefix))
				beside[i] = p.Get(t.Context(), overwrite.VersionKey(e.Key.Redis(prefix)))
			}
			return nil
		})
		for i, e := range part {
			version, payload, err := held(e.Key, values[i], beside[i])
			if err == nil && version == e.Version && bytes.Equal(payload, e.Payload) {
				continue
			}
			if wrong++; wrong < 5 {
				t.Errorf("%s holds %q at %d, %v; want %q at %d", e.Key, payload, version, err, e.Payload, e.Version)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d entries are wrong", wrong, len(want))
	}
}

// held reads a value in the layout of its module.
func held(k rowtide.Key, value, beside *redis.StringCmd) (rowtide.Version, []byte, error) {
	b, err := value.Bytes()
	if err != nil {
		return 0, nil, err
	}
	if k.Module != plainModule {
		e, err := rowtide.DecodeEnvelope(k, b)
		return e.Version, e.Payload, err
	}
	v, _, ok := overwrite.ParsePlainVersion(beside.Val())
	if !ok {
		return 0, b, errors.New("no version beside it")
	}
	return v, b, nil
}

func loggerTo(l *testenv.Log) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}
