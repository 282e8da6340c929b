package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
)

// demoEnv is the servers that the demo runs on.
type demoEnv struct {
	dir       string
	sql       *testenv.SQLServer
	redis     *testenv.RedisServer
	brokers   []string
	kafkaName string
	closers   []func() error
}

func startDemoServers(ctx context.Context, o demoOptions) (e *demoEnv, err error) {
	e = &demoEnv{kafkaName: "in-process Kafka broker"}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop())
		}
	}()
	if e.dir, err = inTempFolder(); err != nil {
		return e, err
	}
	if e.sql, err = testenv.StartSQL(ctx, testenv.Options{Dir: filepath.Join(e.dir, "sql")}); err != nil {
		return e, err
	}
	e.onStop(e.sql.Server)
	if e.redis, err = testenv.StartRedis(ctx, testenv.Options{Dir: filepath.Join(e.dir, "redis")}); err != nil {
		return e, err
	}
	e.onStop(e.redis.Server)
	if len(o.kafka) > 0 {
		e.brokers, e.kafkaName = o.kafka, "Kafka at "+strings.Join(o.kafka, ",")
		return e, nil
	}
	k, err := testenv.StartFakeKafka(testenv.Options{})
	if err != nil {
		return e, err
	}
	e.closers = append(e.closers, func() error { k.Close(); return nil })
	e.brokers = k.Brokers()
	return e, nil
}

func (e *demoEnv) onStop(s *testenv.Server) {
	e.closers = append(e.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return s.Stop(ctx)
	})
}

// stop ends every server and removes every file.
func (e *demoEnv) stop() error {
	var errs []error
	for _, c := range slices.Backward(e.closers) {
		errs = append(errs, c())
	}
	if e.dir != "" {
		errs = append(errs, os.RemoveAll(e.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the demo's servers: %w", err)
	}
	return nil
}
