package main

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/changes"
	"github.com/rowtide/rowtide/config"
	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/publisher"
)

// parts are what a daemon has that shares the work with others.
type parts struct {
	seen   *promobserver.Changes
	lease  *lease          // nil without election
	writer *changes.Writer // of a reader
	group  *changes.Group  // of an applier
	client sarama.Client   // of writer or group
}

// stage is what the source feeds: the aggregators, or the way to Kafka.
type stage interface {
	CloseIntake()
	Run(ctx context.Context) error
}

func (d *daemon) stage() stage {
	if d.writer != nil {
		return d.writer
	}
	return d.pipe
}

// inForce are the modules that the daemon works with.
func (d *daemon) inForce() []*aggregator.Module {
	if d.pipe == nil {
		return d.modules
	}
	return d.pipe.modules()
}

// deposed reports whether a run ended because another daemon has the work now.
func deposed(err error) bool {
	return errors.Is(err, errDeposed) || errors.Is(err, binlog.ErrFenced) || errors.Is(err, publisher.ErrFenced)
}

// errNeverElected means that a standby was stopped, as it may be at any time.
var errNeverElected = errors.New("stopped while standing by")

// elect blocks until it is this daemon's turn. Standbys answer over HTTP that they
// live and are not ready.
func (d *daemon) elect(ctx context.Context) error {
	d.seen = promobserver.NewChanges(d.reg, d.obs)
	if !*d.cfg.Election.Enabled {
		return nil
	}
	srv, err := listen(d.cfg.HTTP.Listen, d.standbyRoutes())
	if err != nil {
		return err
	}
	defer srv.close()
	d.lease = newLease(d.rdb, d.cfg.Redis.Prefix, d.cfg.Name, d.cfg.Election.Lease, d.log)
	if d.lease.win(ctx) != nil {
		return errNeverElected
	}
	d.lease.keep()
	d.seen.Elected(d.lease.term)
	return nil
}

// term is the fencing number of this daemon's election, 0 without.
func (d *daemon) term() uint64 {
	if d.lease == nil {
		return 0
	}
	return d.lease.term
}

// fence ends the writes of entries when another daemon is elected, before hold
// notices; nothing without election.
func (d *daemon) fence() publisher.RedisOption {
	if d.lease == nil {
		return publisher.WithFence("", 0)
	}
	return publisher.WithFence(d.lease.termKey(), d.lease.term)
}

// hold keeps the lease until ctx ends; nothing without election.
func (d *daemon) hold(ctx context.Context) error {
	if d.lease == nil {
		return nil
	}
	err := d.lease.hold(ctx)
	if err != nil {
		d.seen.Deposed()
	}
	return err
}

func (d *daemon) standbyRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusServiceUnavailable, "standing by: another daemon of this name is elected")
	})
	return mux
}

func (d *daemon) changesConfig() changes.Config {
	k := d.cfg.Kafka
	return changes.Config{Brokers: k.Brokers, Topic: k.ChangesTopic, Group: k.Group, Replication: k.Replication, Retention: k.Retention}
}

// dialChanges connects as the daemon's config says, with the settings of one of
// the two ends.
func (d *daemon) dialChanges(end *sarama.Config) error {
	common, err := d.cfg.Kafka.Client()
	if err != nil {
		return err
	}
	end.Net.TLS, end.Net.SASL = common.Net.TLS, common.Net.SASL
	d.client, err = dialKafkaWith(end, d.cfg.Kafka.Brokers, "kafka.brokers")
	return err
}

// ensureTopics makes sure that the changes have as many partitions as the
// invalidations: what an applier knows of one it knows of the other.
func (d *daemon) ensureTopics() error {
	n, err := publisher.EnsureTopic(d.kafka, d.cfg.Kafka)
	if err != nil {
		return err
	}
	return changes.EnsureTopic(d.client, d.changesConfig(), n)
}

// closeParts ends what elect and the roles have opened.
func (d *daemon) closeParts() error {
	var errs []error
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	return errors.Join(errs...)
}

// openRole opens what the daemon's role needs in place of the whole.
func (d *daemon) openRole(ctx context.Context) error {
	if d.cfg.Role == config.RoleReader {
		return d.openReader(ctx)
	}
	return d.openApplier(ctx)
}

// partitions lists the keys of a map in order.
func partitions[V any](m map[int32]V) []int32 {
	out := make([]int32, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}
