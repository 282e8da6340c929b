//go:build integration

package localsync_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

func TestReport_WorksOnACluster(t *testing.T) {
	cluster, err := testenv.StartRedisCluster(t.Context(), 3, false, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Stop(context.Background()) })
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	t.Cleanup(func() { rdb.Close() })
	const fleet = 5
	caches := make([]*localsync.Cache, fleet)
	for i := range caches {
		caches[i], err = localsync.Open(t.Context(), localsync.Options{
			Redis: rdb, Bus: newFakeBus(), Node: fmt.Sprintf("web-%d", i), ReportEvery: 50 * time.Millisecond, Logger: silentLog(),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	told := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d nodes are told", want), func() bool {
			got, err := localsync.Nodes(t.Context(), rdb, localsync.DefaultPrefix)
			return err == nil && len(got) == want
		})
	}
	told(fleet)
	for _, c := range caches {
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	told(0)
}
