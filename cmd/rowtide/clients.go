package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/publisher"
)

// newRedisClient makes a client for one server, a cluster or a primary watched
// by sentinels. Retries are the callers': a script that ran although its reply
// was lost must not be repeated by the client behind their backs.
func newRedisClient(c config.Redis) redis.UniversalClient {
	opts := &redis.UniversalOptions{
		Addrs: c.Addrs, Username: c.Username, Password: c.Password, DB: c.DB,
		MasterName: c.Master, IsClusterMode: c.Cluster, MaxRetries: -1, ClientName: "rowtide",
		DisableIdentity: true, // CLIENT SETINFO would be a right more, which Redis 7.0 does not know
	}
	if c.TLS != "off" {
		// The client verifies each server by the name it was dialled by.
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.TLS == "skip-verify"} //nolint:gosec // the operator's choice
	}
	return redis.NewUniversalClient(opts)
}

// checkRedis says in one sentence what is wrong with the way to Redis.
func checkRedis(ctx context.Context, rdb redis.UniversalClient, c config.Redis) error {
	err := rdb.Ping(ctx).Err()
	switch {
	case err == nil:
		return nil
	case strings.HasPrefix(err.Error(), "WRONGPASS"), strings.HasPrefix(err.Error(), "NOAUTH"):
		return fmt.Errorf("redis at %s refuses user %q (redis.username, redis.password): %w", strings.Join(c.Addrs, ","), c.Username, err)
	case strings.HasPrefix(err.Error(), "NOPERM"):
		return fmt.Errorf("redis user %q lacks a permission: %w; docs/operations.md lists the commands that the daemon needs", c.Username, err)
	}
	return fmt.Errorf("cannot talk to redis at %s (redis.addrs); is it up and reachable from here? %w", strings.Join(c.Addrs, ","), err)
}

// dialKafka connects a client with the producer's settings, without TLS or a
// login; key is where the brokers stand in the config, for the message.
func dialKafka(brokers []string, key string) (sarama.Client, error) {
	return dialKafkaWith(publisher.ProducerConfig(), brokers, key)
}

// dialDaemonKafka connects as the daemon's config says.
func dialDaemonKafka(c publisher.Config) (sarama.Client, error) {
	cfg, err := c.Client()
	if err != nil {
		return nil, err
	}
	client, err := dialKafkaWith(cfg, c.Brokers, "kafka.brokers")
	switch {
	case err == nil:
		return client, nil
	case errors.Is(err, sarama.ErrSASLAuthenticationFailed):
		return nil, fmt.Errorf("kafka refuses user %q (kafka.sasl.user, kafka.sasl.password): %w", c.SASL.User, err)
	case errors.Is(err, sarama.ErrUnsupportedSASLMechanism):
		return nil, fmt.Errorf("kafka does not offer kafka.sasl.mechanism %s: %w", c.SASL.Mechanism, err)
	}
	return nil, err
}

func dialKafkaWith(cfg *sarama.Config, brokers []string, key string) (sarama.Client, error) {
	cfg.Net.DialTimeout = 5 * time.Second
	cfg.Metadata.Retry.Max = 2
	client, err := sarama.NewClient(brokers, cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot talk to kafka at %s (%s); is it up and reachable from here, and are its TLS and login settings right? %w", strings.Join(brokers, ","), key, err)
	}
	return client, nil
}

// quietLibraries sends the clients' own chatter nowhere: what matters of it
// comes back as errors, and the steady state is silent. Once: the clients of an
// earlier call may be reading the setting.
var quietLibraries = sync.OnceFunc(func() {
	sarama.Logger = log.New(discard{}, "", 0)
	logging.Disable()
})

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
