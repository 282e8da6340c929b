package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	sentinels = 3
	// sentinelDown is how long the primary must be silent before it counts as
	// down.
	sentinelDown = "1000"
	// SentinelMaster is the name under which the sentinels know the primary.
	SentinelMaster = "shop"
)

// RedisSentinel is a private primary with one replica, watched by three
// sentinels.
type RedisSentinel struct {
	// Primary and Replica are as started: a failover does not swap them.
	Primary, Replica *RedisServer
	Sentinels        []*RedisServer
}

// StartRedisSentinel returns when the replica is in step and all sentinels know
// the replica and each other, so that from then on a failover can succeed.
// Options apply to the primary and the replica; Dir and Port must be empty.
func StartRedisSentinel(ctx context.Context, o Options) (*RedisSentinel, error) {
	s := &RedisSentinel{}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start redis with sentinels: %w", err), s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *RedisSentinel) start(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	o.Flags = append([]string{"--repl-diskless-sync-delay", "0"}, o.Flags...)
	var err error
	if s.Primary, err = StartRedis(ctx, o); err != nil {
		return err
	}
	o.ReplicaOf = s.Primary.Addr
	if s.Replica, err = StartRedis(ctx, o); err != nil {
		return err
	}
	if err := s.Replica.AwaitReplica(ctx); err != nil {
		return err
	}
	for range sentinels {
		one, err := startSentinel(ctx, o.Bin, s.Primary)
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, one)
	}
	for _, one := range s.Sentinels {
		if err := one.until(ctx, "know replica and sentinels", func(info string) bool {
			return strings.Contains(info, "status=ok") && strings.Contains(info, "slaves=1,sentinels="+strconv.Itoa(sentinels))
		}, "INFO", "sentinel"); err != nil {
			return err
		}
	}
	return nil
}

func startSentinel(ctx context.Context, bin string, primary *RedisServer) (*RedisServer, error) {
	if bin == "" {
		var ok bool
		if bin, ok = find("redis-server"); !ok {
			return nil, notInstalled("Redis")
		}
	}
	s, err := launch(ctx, "sentinel", Options{}, func(_ context.Context, s *Server) error {
		// A sentinel rewrites its own file, so that lies where it may write.
		if err := os.MkdirAll(s.dataDir(), 0o755); err != nil {
			return err
		}
		s.spec.as = unprivileged(s.dataDir(), bin)
		path := filepath.Join(s.dataDir(), "sentinel.conf")
		conf := strings.Join([]string{
			"bind 127.0.0.1", "port " + strconv.Itoa(s.Port()), "dir " + strconv.Quote(s.dataDir()),
			"sentinel monitor " + SentinelMaster + " 127.0.0.1 " + strconv.Itoa(primary.Port()) + " 2",
			"sentinel down-after-milliseconds " + SentinelMaster + " " + sentinelDown,
			"sentinel failover-timeout " + SentinelMaster + " 5000", "",
		}, "\n")
		if primary.Password != "" {
			conf += "sentinel auth-pass " + SentinelMaster + " " + primary.Password + "\n"
		}
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			return err
		}
		s.spec.argv = []string{bin, path, "--sentinel"}
		s.spec.ready = func(ctx context.Context) error { return pingRedis(ctx, s.Addr, "") }
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &RedisServer{Server: s}, nil
}

// Addrs returns the sentinels' addresses.
func (s *RedisSentinel) Addrs() []string {
	var addrs []string
	for _, one := range s.Sentinels {
		addrs = append(addrs, one.Addr)
	}
	return addrs
}

// Stop ends all processes; see [Server.Stop].
func (s *RedisSentinel) Stop(ctx context.Context) error {
	return stopAll(ctx, append([]*RedisServer{s.Primary, s.Replica}, s.Sentinels...))
}
