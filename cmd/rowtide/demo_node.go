package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// What the shop's pages show; the fields are the modules' columns.
type (
	shopEvent struct {
		ID         uint64    `json:"id"`
		Title      string    `json:"title"`
		Venue      uint64    `json:"venue_id"`
		State      string    `json:"state"`
		VisibleAt  time.Time `json:"visible_at"`
		SellableAt time.Time `json:"sellable_at"`
		Rev        uint64    `json:"rev"`
	}
	shopPage struct {
		ID       uint64 `json:"id"`
		Title    string `json:"title"`
		Venue    string `json:"venue"`
		City     string `json:"city"`
		Sessions []any  `json:"sessions"`
		Tiers    []any  `json:"tiers"`
	}
	shopStock struct {
		Event string `json:"event"`
		SKU   string `json:"sku"`
		Avail int64  `json:"avail"`
		Held  int64  `json:"held"`
		Sold  int64  `json:"sold"`
		Seq   int64  `json:"seq"`
	}
)

// webNode is one node of the shop: a cache of its own over the shared Redis.
type webNode struct {
	rdb    *redis.Client
	cache  *localsync.Cache
	events *localsync.Module[uint64, shopEvent]
	pages  *localsync.Module[uint64, shopPage]
	stock  *localsync.Module[string, shopStock]
}

// applied tells the meter when a node has heard of a change.
type applied struct {
	localsync.NopObserver
	meter *meter
	node  int
}

// Applied implements localsync.Observer.
func (a applied) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) {
	a.meter.applied(a.node, inv.Key, inv.Version)
}

// Hinted implements localsync.Observer.
func (a applied) Hinted(inv rowtide.Invalidation) { a.meter.applied(a.node, inv.Key, inv.Version) }

const demoNodes = 3

// openNodes opens the web nodes the way an application does.
func (s *shop) openNodes(ctx context.Context) error {
	for i := range demoNodes {
		n, err := s.openNode(ctx, i)
		if err != nil {
			return fmt.Errorf("web node %d: %w", i+1, err)
		}
		s.nodes = append(s.nodes, n)
	}
	for _, n := range s.nodes {
		select {
		case <-n.cache.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *shop) openNode(ctx context.Context, i int) (*webNode, error) {
	n := &webNode{rdb: redis.NewClient(&redis.Options{Addr: s.env.redis.Addr})}
	var err error
	n.cache, err = localsync.Open(ctx, localsync.Options{
		Redis: n.rdb, Brokers: s.env.brokers, Topic: s.daemon.cfg.Kafka.Topic, Prefix: s.daemon.cfg.Redis.Prefix,
		MaxBytes: 32 << 20, Observer: applied{meter: s.meter, node: i}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return n, err
	}
	if n.events, err = localsync.NewModule(n.cache, localsync.ModuleConfig[uint64]{Name: "event"}, localsync.JSON[shopEvent](), s.loadEvents); err != nil {
		return n, err
	}
	// Pages and stock are assembled by the daemon alone: no loader.
	if n.pages, err = localsync.NewModule(n.cache, localsync.ModuleConfig[uint64]{Name: "event_page"}, localsync.JSON[shopPage](), nil); err != nil {
		return n, err
	}
	n.stock, err = localsync.NewModule(n.cache, localsync.ModuleConfig[string]{Name: "stock_view"}, localsync.JSON[shopStock](), nil)
	return n, err
}

// loadEvents is what a node falls back to when Redis has nothing: the
// application's own query.
func (s *shop) loadEvents(ctx context.Context, ids []uint64) (map[uint64]shopEvent, error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	rows, err := s.db.QueryContext(ctx, "SELECT id, title, venue_id, state, visible_at, sellable_at, rev FROM shop.event WHERE id IN (?"+
		strings.Repeat(",?", len(ids)-1)+")", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return scanEvents(rows)
}

func scanEvents(rows *sql.Rows) (map[uint64]shopEvent, error) {
	out := map[uint64]shopEvent{}
	for rows.Next() {
		var e shopEvent
		if err := rows.Scan(&e.ID, &e.Title, &e.Venue, &e.State, &e.VisibleAt, &e.SellableAt, &e.Rev); err != nil {
			return nil, err
		}
		out[e.ID] = e
	}
	return out, rows.Err()
}

func (n *webNode) close() error {
	var err error
	if n.cache != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = n.cache.Close(ctx)
	}
	if cerr := n.rdb.Close(); err == nil {
		err = cerr
	}
	return err
}
