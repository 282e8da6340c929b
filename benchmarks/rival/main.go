// Command rival is the benchmark's honest rival: what a team writes in an
// afternoon to keep Redis up to date from the log, on a well-kept library.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-mysql-org/go-mysql/canal"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/redis/go-redis/v9"
)

const (
	ttl        = 24 * time.Hour
	batch      = 100 // rows in a pipeline,
	flushEvery = 10 * time.Millisecond
	saveEvery  = time.Second
)

type row struct {
	key  string
	json []byte         // nil: deleted
	pos  mysql.Position // everything before it has been queued before the row
}

type writer struct {
	canal.DummyEventHandler
	rdb    *redis.Client
	prefix string
	queue  chan row // nil: each row is written before the next is read
	pos    mysql.Position
	saved  time.Time
}

// OnRow implements canal.EventHandler.
func (w *writer) OnRow(e *canal.RowsEvent) error {
	first, step := 0, 1
	if e.Action == canal.UpdateAction {
		first, step = 1, 2 // before, after
	}
	for i := first; i < len(e.Rows); i += step {
		doc := map[string]any{}
		for c, col := range e.Table.Columns {
			switch col.Name {
			case "id", "name", "price", "state", "updated_at":
				doc[col.Name] = e.Rows[i][c]
			}
		}
		r := row{key: fmt.Sprintf("%s:item:%v", w.prefix, doc["id"]), pos: w.pos}
		if e.Action != canal.DeleteAction {
			var err error
			if r.json, err = json.Marshal(doc); err != nil {
				return err
			}
		}
		if w.queue != nil {
			w.queue <- r
		} else if err := put(w.rdb, r).Err(); err != nil {
			return err
		}
	}
	return nil
}

func put(to redis.Cmdable, r row) redis.Cmder {
	if r.json == nil {
		return to.Del(context.Background(), r.key)
	}
	return to.Set(context.Background(), r.key, r.json, ttl)
}

// OnPosSynced implements canal.EventHandler.
func (w *writer) OnPosSynced(_ *replication.EventHeader, pos mysql.Position, _ mysql.GTIDSet, _ bool) error {
	w.pos = pos
	if w.queue != nil {
		return nil
	}
	return w.save(pos)
}

func (w *writer) save(pos mysql.Position) error {
	if time.Since(w.saved) < saveEvery {
		return nil
	}
	w.saved = time.Now()
	return w.rdb.Set(context.Background(), w.prefix+":position", pos.String(), 0).Err()
}

// flush writes what is queued, in pipelines.
func (w *writer) flush() error {
	pipe, tick := w.rdb.Pipeline(), time.NewTicker(flushEvery)
	var last mysql.Position
	for {
		select {
		case r := <-w.queue:
			last = r.pos
			put(pipe, r)
			if pipe.Len() < batch {
				continue
			}
		case <-tick.C:
		}
		if pipe.Len() == 0 {
			continue
		}
		if _, err := pipe.Exec(context.Background()); err != nil {
			return err
		}
		if err := w.save(last); err != nil {
			return err
		}
	}
}

func run() error {
	source := flag.String("source", "", "address of the MySQL or MariaDB server")
	flavor := flag.String("flavor", "mysql", "mysql or mariadb")
	addr := flag.String("redis", "", "address of Redis")
	pipeline := flag.Bool("pipeline", true, "write in pipelines")
	w := &writer{}
	flag.StringVar(&w.prefix, "prefix", "rival", "of all keys")
	flag.Parse()
	w.rdb = redis.NewClient(&redis.Options{Addr: *addr})
	cfg := canal.NewDefaultConfig()
	cfg.Addr, cfg.User, cfg.Flavor = *source, "root", *flavor
	cfg.Dump.ExecutionPath = "" // the log holds everything
	cfg.IncludeTableRegex = []string{`bench\.item`}
	c, err := canal.NewCanal(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetEventHandler(w)
	failed := make(chan error, 1)
	if *pipeline {
		w.queue = make(chan row, 4096)
		go func() { failed <- w.flush() }()
	}
	go func() { failed <- c.RunFrom(mysql.Position{Name: "binlog.000001", Pos: 4}) }()
	return <-failed
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rival:", err)
		os.Exit(1)
	}
}
