//go:build integration

package overwrite_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

func TestScript_Redis(t *testing.T) {
	checkScript(t, func(t *testing.T) (*redis.Client, string) {
		t.Helper()
		rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
		t.Cleanup(func() { rdb.Close() })
		return rdb, testenv.UniqueName(t, "o")
	})
}
