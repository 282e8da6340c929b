package testenv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	clusterSlots = 16384
	// clusterNodeTimeout is how long a node must be silent before the others
	// elect its replica. Shorter ones have made busy machines fail over for
	// nothing.
	clusterNodeTimeout = 2 * time.Second
	// clusterBusOffset is where Redis puts a node's second port by default; it
	// must be free too.
	clusterBusOffset = 10000
)

// RedisCluster is a private Redis Cluster.
type RedisCluster struct {
	// Masters and Replicas are as started: a failover does not swap them.
	// Replicas[i] follows Masters[i]; it is empty when none were asked for.
	Masters, Replicas []*RedisServer
}

// StartRedisCluster starts masters with an equal share of the slots, each with
// one replica if asked. It returns when every node calls the cluster whole and
// every replica is in step. Options apply to each node; Dir and Port must be
// empty.
func StartRedisCluster(ctx context.Context, masters int, replicas bool, o Options) (*RedisCluster, error) {
	c, err := startRedisCluster(ctx, masters, replicas, o)
	if err != nil && strings.Contains(err.Error(), "epoch is already non-zero") {
		// Nodes of another test's cluster, which is going down, have met one of ours:
		// it has the port of one of theirs.
		return startRedisCluster(ctx, masters, replicas, o)
	}
	return c, err
}

func startRedisCluster(ctx context.Context, masters int, replicas bool, o Options) (*RedisCluster, error) {
	c := &RedisCluster{}
	n := masters
	if replicas {
		n *= 2
	}
	nodes, err := startClusterNodes(ctx, n, o)
	if err != nil {
		return nil, err
	}
	c.Masters, c.Replicas = nodes[:masters], nodes[masters:]
	if err := c.join(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("join redis cluster: %w", err), c.Stop(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// startClusterNodes starts n nodes side by side.
func startClusterNodes(ctx context.Context, n int, o Options) ([]*RedisServer, error) {
	o.Flags = append([]string{
		"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", strconv.FormatInt(clusterNodeTimeout.Milliseconds(), 10),
		"--repl-diskless-sync-delay", "0",
	}, o.Flags...)
	nodes, errs := make([]*RedisServer, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { nodes[i], errs[i] = startClusterNode(ctx, o) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, stopAll(context.WithoutCancel(ctx), nodes))
	}
	return nodes, nil
}

// startClusterNode looks for a port whose bus port is free as well.
func startClusterNode(ctx context.Context, o Options) (*RedisServer, error) {
	for range portTries {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		if port+clusterBusOffset > lastPort || portFree(ctx, loopback(port+clusterBusOffset)) != nil {
			continue
		}
		o.Port = port
		s, err := StartRedis(ctx, o)
		if err != nil && portTaken(err) {
			continue
		}
		return s, err
	}
	return nil, errors.New("start redis cluster node: no free pair of ports found")
}

func (c *RedisCluster) nodes() []*RedisServer {
	return append(append([]*RedisServer{}, c.Masters...), c.Replicas...)
}

// Addrs returns the addresses of all nodes.
func (c *RedisCluster) Addrs() []string {
	var addrs []string
	for _, s := range c.nodes() {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// Stop ends all nodes; see [Server.Stop].
func (c *RedisCluster) Stop(ctx context.Context) error { return stopAll(ctx, c.nodes()) }

func stopAll(ctx context.Context, servers []*RedisServer) error {
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if s != nil {
			wg.Go(func() { errs[i] = s.Stop(ctx) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *RedisCluster) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for i, m := range c.Masters {
		from, to := i*clusterSlots/len(c.Masters), (i+1)*clusterSlots/len(c.Masters)-1
		steps := [][]string{
			{"CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i + 1)},
			{"CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)},
		}
		for _, words := range steps {
			if _, err := m.Do(ctx, words...); err != nil {
				return err
			}
		}
	}
	if err := c.meet(ctx); err != nil {
		return err
	}
	return c.attach(ctx)
}

// meet introduces every node to the first and lets gossip do the rest. A
// handshake that is lost on a busy machine is repeated.
func (c *RedisCluster) meet(ctx context.Context) error {
	const patience = 3 * clusterNodeTimeout
	for {
		for _, s := range c.nodes()[1:] {
			if _, err := c.Masters[0].Do(ctx, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(s.Port())); err != nil {
				return err
			}
		}
		round, cancel := context.WithTimeout(ctx, patience)
		err := c.each(round, "know all nodes", func(nodes string) bool {
			return strings.Count(nodes, " connected") == len(c.nodes()) && strings.Count(nodes, "\n") == len(c.nodes())
		}, "CLUSTER", "NODES")
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// each waits until the answers of all nodes satisfy ok.
func (c *RedisCluster) each(ctx context.Context, what string, ok func(answer string) bool, words ...string) error {
	for _, s := range c.nodes() {
		if err := s.until(ctx, what, ok, words...); err != nil {
			return err
		}
	}
	return nil
}

// attach makes the replicas replicas, and waits until all is well.
func (c *RedisCluster) attach(ctx context.Context) error {
	for i, r := range c.Replicas {
		id, err := c.Masters[i].Do(ctx, "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		// Refused until the gossip has told this node that the other is a master.
		if err := r.until(ctx, "become a replica", func(string) bool { return true }, "CLUSTER", "REPLICATE", id); err != nil {
			return err
		}
	}
	if err := c.each(ctx, "call the cluster whole", func(info string) bool {
		return field(info, "cluster_state") == "ok" && field(info, "cluster_slots_ok") == strconv.Itoa(clusterSlots)
	}, "CLUSTER", "INFO"); err != nil {
		return err
	}
	for _, r := range c.Replicas {
		if err := r.AwaitReplica(ctx); err != nil {
			return err
		}
	}
	// Every node must know every replica, or it would not give it its vote.
	return c.each(ctx, "know all replicas", func(nodes string) bool {
		return strings.Count(nodes, "slave ") == len(c.Replicas)
	}, "CLUSTER", "NODES")
}

// AwaitReplica waits until a replica has its primary's data and follows.
func (s *RedisServer) AwaitReplica(ctx context.Context) error {
	return s.until(ctx, "follow its primary", func(info string) bool {
		return field(info, "master_link_status") == "up" && field(info, "master_sync_in_progress") == "0"
	}, "INFO", "replication")
}

// Promote makes a replica a primary, as an operator would by REPLICAOF NO ONE.
func (s *RedisServer) Promote(ctx context.Context) error {
	_, err := s.Do(ctx, "REPLICAOF", "NO", "ONE")
	return err
}

// until repeats a command until its answer satisfies ok.
func (s *RedisServer) until(ctx context.Context, what string, ok func(answer string) bool, words ...string) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		answer, err := s.Do(ctx, words...)
		if err == nil && ok(answer) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("redis at %s never came to %s: %w; last answer %q, %w", s.Addr, what, ctx.Err(), answer, err)
		case <-tick.C:
		}
	}
}

// field finds "name:value" in the lines of an INFO.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
