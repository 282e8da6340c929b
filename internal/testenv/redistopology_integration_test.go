//go:build integration

package testenv_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

func TestRedisCluster_IsWholeAndItsReplicasTakeOver(t *testing.T) {
	for _, p := range testenv.RedisPrograms(t) {
		t.Run(p.Name, func(t *testing.T) {
			ctx := testContext(t)
			c, err := testenv.StartRedisCluster(ctx, 3, true, testenv.Options{Bin: p.Bin})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range append(c.Masters, c.Replicas...) {
				stopAtEnd(t, s.Server)
			}
			rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
			defer rdb.Close()
			if err := c.Masters[0].Kill(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the replica serves its slots", func() bool {
				rdb.ReloadState(ctx)                               // the client itself would take a minute
				return rdb.Set(ctx, "{06S}k", "v", 0).Err() == nil // slot 0
			})
		})
	}
}

func TestRedisSentinel_FailsOver(t *testing.T) {
	for _, p := range testenv.RedisPrograms(t) {
		t.Run(p.Name, func(t *testing.T) {
			ctx := testContext(t)
			s, err := testenv.StartRedisSentinel(ctx, testenv.Options{Bin: p.Bin})
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range append([]*testenv.RedisServer{s.Primary, s.Replica}, s.Sentinels...) {
				stopAtEnd(t, one.Server)
			}
			rdb := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: testenv.SentinelMaster, SentinelAddrs: s.Addrs()})
			defer rdb.Close()
			if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if err := s.Primary.Kill(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the replica takes writes", func() bool {
				return rdb.Set(ctx, "k", "w", 0).Err() == nil
			})
		})
	}
}
