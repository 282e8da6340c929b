package promobserver

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Changes observes a daemon that shares the work with others: the election, and
// the topic of changes between readers and appliers.
type Changes struct {
	pipeline        *Pipeline
	leader          prometheus.Gauge
	term            prometheus.Gauge
	sent, records   prometheus.Counter
	claimed, behind *prometheus.GaugeVec
}

// NewChanges makes the metrics and registers them. Outages count as Kafka's in p.
func NewChanges(reg prometheus.Registerer, p *Pipeline) *Changes {
	c := &Changes{
		pipeline: p,
		leader:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "rowtide_election_leader", Help: "1 while this daemon is the elected one."}),
		term:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "rowtide_election_term", Help: "Fencing number of this daemon's last election."}),
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_changes_sent_total", Help: "Routed changes that Kafka acknowledged."}),
		records:  prometheus.NewCounter(prometheus.CounterOpts{Name: "rowtide_changes_records_total", Help: "Records that carried them, and heartbeats."}),
		claimed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rowtide_changes_claimed", Help: "1 for each partition of the changes that is this applier's.",
		}, []string{"partition"}),
		behind: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rowtide_changes_behind_records", Help: "Records of the partition that are not yet in Redis and on Kafka.",
		}, []string{"partition"}),
	}
	reg.MustRegister(c.leader, c.term, c.sent, c.records, c.claimed, c.behind)
	return c
}

// Elected notes the beginning of a term.
func (c *Changes) Elected(term uint64) {
	c.leader.Set(1)
	c.term.Set(float64(term))
}

// Deposed notes its end.
func (c *Changes) Deposed() { c.leader.Set(0) }

// Sent implements changes.Observer.
func (c *Changes) Sent(changes, records int) {
	c.sent.Add(float64(changes))
	c.records.Add(float64(records))
}

// ChangesAway implements changes.Observer.
func (c *Changes) ChangesAway(err error) { c.pipeline.KafkaAway(err) }

// Joined implements changes.Observer.
func (c *Changes) Joined() { c.pipeline.Connected() }

// Claimed implements changes.Observer.
func (c *Changes) Claimed(partition int32, ours bool) {
	label := strconv.Itoa(int(partition))
	if ours {
		c.claimed.WithLabelValues(label).Set(1)
		return
	}
	c.claimed.DeleteLabelValues(label)
	c.behind.DeleteLabelValues(label)
}

// Behind implements changes.Observer.
func (c *Changes) Behind(partition int32, records int64) {
	c.behind.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(records))
}
