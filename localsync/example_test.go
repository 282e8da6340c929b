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
	fmt.Println(info.Level)
	_, err = shows.Get(ctx, 43)
	fmt.Println(errors.Is(err, localsync.ErrNotFound))
	many, err := shows.GetMany(ctx, []int64{42, 43})
	fmt.Println(len(many), err)
	// Output:
	// Hamlet <nil>
	// local
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

// A show goes on sale at an instant that lies in its row; nothing is written when
// it comes. Timed evaluates it at each read, however long ago the row was decoded.
func ExampleTimed() {
	type show struct {
		Title    string    `json:"title"`
		OnSaleAt time.Time `json:"on_sale_at"`
		OnSale   bool      `json:"-"`
	}
	at := func(s show, now time.Time) show {
		s.OnSale = !now.Before(s.OnSaleAt) // s is a copy, what it points to is not
		return s
	}
	codec := localsync.Timed(localsync.JSON[show](), at) // for NewModule
	hamlet, err := codec.Decode([]byte(`{"title": "Hamlet", "on_sale_at": "2026-12-01T09:00:00Z"}`))
	fmt.Println(hamlet.Title, err)
	opens := hamlet.OnSaleAt
	fmt.Println(at(hamlet, opens.Add(-time.Second)).OnSale, at(hamlet, opens).OnSale)
	// Output:
	// Hamlet <nil>
	// false true
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
