package promobserver

import "github.com/prometheus/client_golang/prometheus"

// Feed observes a source of kind kafka as [Pipeline] does one that reads a log.
type Feed struct {
	*Pipeline
	passed *prometheus.CounterVec
}

// NewFeed makes the metrics that only such a source has and registers them.
func NewFeed(reg prometheus.Registerer, p *Pipeline) *Feed {
	f := &Feed{Pipeline: p, passed: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rowtide_feed_passed_over_total", Help: "Records without a change of a watched table.",
	}, []string{"reason"})}
	reg.MustRegister(f.passed)
	return f
}

// PassedOver implements feed.Observer.
func (f *Feed) PassedOver(why string) { f.passed.WithLabelValues(why).Inc() }
