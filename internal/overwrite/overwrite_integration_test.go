//go:build integration

package overwrite_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// onEach runs a check on every server that speaks the protocol.
func onEach(t *testing.T, check func(*testing.T, func(*testing.T) (*redis.Client, string))) {
	t.Helper()
	for _, p := range testenv.RedisPrograms(t) {
		t.Run(p.Name, func(t *testing.T) {
			s, err := testenv.StartRedis(t.Context(), testenv.Options{Bin: p.Bin})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
			check(t, func(t *testing.T) (*redis.Client, string) {
				t.Helper()
				rdb := redis.NewClient(&redis.Options{Addr: s.Addr})
				t.Cleanup(func() { rdb.Close() })
				return rdb, "o"
			})
		})
	}
}

func TestScript_Servers(t *testing.T) { onEach(t, checkScript) }

func TestPlainScript_Servers(t *testing.T) { onEach(t, checkPlainScript) }

func TestFence_Servers(t *testing.T) { onEach(t, checkFence) }
