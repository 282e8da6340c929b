package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// lineage is what a primary says about where its data come from.
type lineage struct {
	addr, run string
	id        string
	offset    int64
	// former is the id that it followed until it was promoted, and formerEnd the
	// first offset that it did not take over; empty when it never did.
	former    string
	formerEnd int64
}

// errNoPrimary means that the client does not know the primaries of this moment.
var errNoPrimary = errors.New("the client's view of who is primary is old")

// readLineages asks the primary, or every primary of a cluster.
func readLineages(ctx context.Context, rdb redis.UniversalClient) ([]lineage, error) {
	c, ok := rdb.(*redis.ClusterClient)
	if !ok {
		addr := ""
		if one, ok := rdb.(*redis.Client); ok && one.Options().Addr != viaSentinel {
			addr = one.Options().Addr
		}
		l, err := readLineage(ctx, rdb, addr)
		return []lineage{l}, err
	}
	var mu sync.Mutex
	var all []lineage
	err := c.ForEachMaster(ctx, func(ctx context.Context, one *redis.Client) error {
		l, err := readLineage(ctx, one, one.Options().Addr)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, l)
		return err
	})
	return all, err
}

// viaSentinel is the address of a client that has asked sentinels.
const viaSentinel = "FailoverClient"

// readLineage asks one server; with an empty addr its port stands in for it.
func readLineage(ctx context.Context, rdb redis.Cmdable, addr string) (lineage, error) {
	var server, replication *redis.StringCmd
	// One round trip on one connection, so that both answers are one server's.
	if _, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		server, replication = p.Info(ctx, "server"), p.Info(ctx, "replication")
		return nil
	}); err != nil {
		return lineage{}, fmt.Errorf("ask redis for its replication id: %w", err)
	}
	return parseLineage(addr, server.Val()+replication.Val())
}

func parseLineage(addr, info string) (lineage, error) {
	get := func(name string) string {
		for line := range strings.Lines(info) {
			if v, ok := strings.CutPrefix(line, name+":"); ok {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	l := lineage{addr: addr, run: get("run_id"), id: get("master_replid"), former: get("master_replid2")}
	if addr == "" {
		l.addr = "port " + get("tcp_port")
	}
	if role := get("role"); role != "master" {
		return l, fmt.Errorf("redis at %s (%s): %w", l.addr, role, errNoPrimary)
	}
	if strings.Trim(l.former, "0") == "" {
		l.former = ""
	}
	if l.run == "" || l.id == "" {
		return lineage{addr: l.addr}, nil // some hosted services hide them
	}
	var err error
	if l.offset, err = strconv.ParseInt(get("master_repl_offset"), 10, 64); err != nil {
		return l, fmt.Errorf("master_repl_offset: %w", err)
	}
	if l.former != "" {
		if l.formerEnd, err = strconv.ParseInt(get("second_repl_offset"), 10, 64); err != nil {
			return l, fmt.Errorf("second_repl_offset: %w", err)
		}
	}
	return l, nil
}

// heir finds what has become of a lineage. why is empty when its data are all
// there; else end is the first offset of it that the heir may lack.
func (l *lineage) heir(now []lineage) (heir lineage, end int64, why string) {
	for _, n := range now {
		switch {
		case n.id == l.id && n.offset >= l.offset:
			return n, 0, ""
		case n.id == l.id:
			return n, n.offset + 1, "has gone back in its own history"
		case n.former == l.id:
			return n, n.formerEnd, "took over from the one that was written to, as its replica or from its file"
		case n.run == l.run && n.former == "":
			// The same process with a new id and no former one: its backlog was made
			// or given up, as when the first replica comes or the last one goes.
			return n, 0, ""
		}
	}
	for _, n := range now {
		switch {
		case n.addr == l.addr && n.run != l.run:
			return n, 0, "was started again"
		case n.addr == l.addr:
			return n, 0, "holds another server's data"
		}
	}
	return *l, 0, "is a primary no longer, and none that is says that it continues its data"
}
