package localsync_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowtide/rowtide/localsync"
)

// Show is a row of the shop as its pages need it.
type Show struct {
	ID    int64  `json:"id"`
	Title string `json:"title"`
}

// queryShows stands for the application's own query, or call of a service:
//
//	SELECT id, title FROM shop.event WHERE id IN (…)
func queryShows(_ context.Context, ids []int64) (map[int64]Show, error) {
	shows := map[int64]Show{42: {ID: 42, Title: "Hamlet"}}
	found := make(map[int64]Show, len(ids))
	for _, id := range ids {
		if s, ok := shows[id]; ok {
			found[id] = s // what is left out does not exist
		}
	}
	return found, nil
}

// The ten lines that a web node needs.
func Example() {
	ctx := context.Background()
	redisAddr, brokers, stop := servers()
	defer stop()

	rdb := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer func() { _ = rdb.Close() }()
	cache, err := localsync.Open(ctx, localsync.Options{Redis: rdb, Brokers: brokers})
	if err != nil {
		log.Panic(err)
	}
	defer func() { _ = cache.Close(ctx) }()
	shows, err := localsync.NewModule(cache, localsync.ModuleConfig[int64]{Name: "show"}, localsync.JSON[Show](), queryShows)
	if err != nil {
		log.Panic(err)
	}

	show, err := shows.Get(ctx, 42)
	fmt.Println(show.Title, err)
	_, info, _ := shows.Lookup(ctx, 42)
	fmt.Println(info.Level, info.Stale)
	_, err = shows.Get(ctx, 43)
	fmt.Println(errors.Is(err, localsync.ErrNotFound))
	many, err := shows.GetMany(ctx, []int64{42, 43})
	fmt.Println(len(many), err)
	// Output:
	// Hamlet <nil>
	// local false
	// true
	// 1 <nil>
}

// A module with everything said.
func ExampleModuleConfig() {
	type seat struct{ Row, Number int }
	cfg := localsync.ModuleConfig[seat]{
		Name: "seat", Version: 2,
		TTL: 24 * time.Hour, Refresh: time.Minute,
		Empty:   localsync.Window{TTL: 30 * time.Second, Refresh: 10 * time.Second},
		OnError: localsync.Optional, MaxStale: 5 * time.Second,
		Batch: 100, LoadTimeout: time.Second,
		Key: func(s seat) string { return fmt.Sprintf("%d-%d", s.Row, s.Number) },
	}
	fmt.Println(cfg.Key(seat{3, 14}))
	// Output: 3-14
}

// servers are in-process stand-ins for what the shop runs.
func servers() (redisAddr string, brokers []string, stop func()) {
	mr, err := miniredis.Run()
	if err != nil {
		log.Panic(err)
	}
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, localsync.DefaultTopic))
	if err != nil {
		log.Panic(err)
	}
	return mr.Addr(), kafka.ListenAddrs(), func() { kafka.Close(); mr.Close() }
}
