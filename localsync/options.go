package localsync

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
)

// The defaults of [Options].
const (
	DefaultTopic        = "rowtide.invalidations"
	DefaultPrefix       = "rowtide"
	DefaultMaxBytes     = 256 << 20
	DefaultMaxFloors    = 1 << 20
	DefaultFloorAge     = 5 * time.Minute
	DefaultReplicaLag   = 2 * time.Second
	DefaultSilence      = 3 * time.Second
	DefaultRedisTimeout = 500 * time.Millisecond
	DefaultReportEvery  = 5 * time.Second
)

// Options say what a [Cache] is connected to. Redis and either Brokers or Bus
// have no honest default; all else is usable when left zero.
type Options struct {
	// Redis is the client to read from and to write loaded values to. The cache
	// does not close it. Set ClusterStateReloadInterval of a cluster client to a few
	// seconds: by its default it may go on asking a dead primary for up to a minute
	// after the replica's promotion, and the loaders carry that part of the keys.
	Redis redis.UniversalClient
	// Brokers are the Kafka bootstrap addresses of the invalidation topic.
	Brokers []string
	// Kafka is a sarama configuration for TLS, SASL and the like; it is copied.
	// Nil is sarama's default. Ignored without Brokers.
	Kafka *sarama.Config
	// Bus replaces Brokers: another transport, or a test's.
	Bus Bus
	// Topic of the invalidations.
	//
	// Defaults to DefaultTopic.
	Topic string
	// ControlTopic tells the settings of modules (see ModuleConfig.Pinned) and when
	// all of a module is to be read again. Without that topic the code's own
	// settings stay in force.
	//
	// Defaults to the Prefix and ".control".
	ControlTopic string
	// Prefix of every Redis key; it must be the daemon's.
	//
	// Defaults to DefaultPrefix.
	Prefix string
	// MaxBytes bounds the memory of the local values, and an eighth of it is for
	// moving them in: when what is live would not fit the rest, the oldest written
	// go first. The side table (some 90 bytes an entry), the floors and
	// ModuleConfig.Objects come on top. The store has up to 64 shards of at least
	// 1 MiB, and more of 4 to 8 MiB above 256 MiB; a value larger than half a shard
	// is served but not kept. At least 1 MiB.
	//
	// Defaults to DefaultMaxBytes.
	MaxBytes int
	// MaxFloors is about how many recently changed keys are remembered, at some 40
	// bytes each. When more change within FloorAge, floors are forgotten early,
	// which costs some refused loads and never a wrong value.
	//
	// Defaults to DefaultMaxFloors.
	MaxFloors int
	// FloorAge is how long a change is remembered at least (unless MaxFloors
	// comes first). It must exceed the longest load by far.
	//
	// Defaults to DefaultFloorAge.
	FloorAge time.Duration
	// ReplicaLag is the largest lag of whatever the loaders read from. A loaded
	// value claims to include only what was applied this long ago, and for as long
	// after missed records, a mass change or a new key space it claims nothing: it is
	// Stale, and loaded by each node. Where loaders read the source itself, some
	// milliseconds do.
	//
	// Defaults to DefaultReplicaLag.
	ReplicaLag time.Duration
	// Silence is how long the bus may say nothing (the daemon's heartbeats come
	// every 200 ms) before the node calls itself degraded and checks entries
	// older than their module's MaxStale against Redis.
	//
	// Defaults to DefaultSilence.
	Silence time.Duration
	// RedisTimeout bounds one round trip, whatever the client's own settings.
	//
	// Defaults to DefaultRedisTimeout.
	RedisTimeout time.Duration
	// Node is this node's name in the daemon's list of nodes (GET /admin/nodes, `rowtide
	// status`) and on the debug page.
	//
	// Defaults to the host's name and the process id.
	Node string
	// ReportEvery is how often the node tells its statistics to the daemon, in one
	// small value under the Prefix in Redis, which ends with the node. A client that
	// may not write costs one warning. Negative: never.
	//
	// Defaults to DefaultReportEvery.
	ReportEvery time.Duration
	// NoHints has the node hear of changes over the bus alone. Otherwise the daemon
	// tells of most of them some milliseconds before, through Redis, which takes the
	// node one connection and the right to subscribe. Nothing but promptness depends on
	// it. A cluster has no hints.
	NoHints bool
	// Away is what Open does when Redis or the bus cannot be used; see [Away].
	//
	// Defaults to AwayFail.
	Away Away
	// Observer is told what happens; see [Observer].
	//
	// Defaults to NopObserver.
	Observer Observer
	// Logger gets changes of state only; steady state is silent.
	//
	// Defaults to slog.Default.
	Logger *slog.Logger
	// Now is the clock, for tests. It must never go back.
	//
	// Defaults to time.Now.
	Now func() time.Time

	realTime bool     // Now was not set
	given    *Options // before defaults, for the debug page
}

// WithDefaults is a copy with every zero field that has a default set to it.
func (o Options) WithDefaults() Options {
	given := o
	o.given = &given
	setDefault(&o.Topic, DefaultTopic)
	setDefault(&o.Prefix, DefaultPrefix)
	setDefault(&o.ControlTopic, o.Prefix+".control")
	setDefault(&o.MaxBytes, DefaultMaxBytes)
	setDefault(&o.MaxFloors, DefaultMaxFloors)
	setDefault(&o.FloorAge, DefaultFloorAge)
	setDefault(&o.ReplicaLag, DefaultReplicaLag)
	setDefault(&o.Silence, DefaultSilence)
	setDefault(&o.RedisTimeout, DefaultRedisTimeout)
	setDefault(&o.ReportEvery, DefaultReportEvery)
	setDefault(&o.Node, defaultNode())
	setDefault(&o.Away, AwayFail)
	if o.Observer == nil {
		o.Observer = NopObserver{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now, o.realTime = time.Now, true
	}
	return o
}

// Validate reports all faults at once. It expects defaults to be set.
func (o Options) Validate() error {
	var errs []error
	if o.Redis == nil {
		errs = append(errs, errors.New("set Redis: the client that the daemon's Redis is reached with"))
	}
	if len(o.Brokers) == 0 && o.Bus == nil {
		errs = append(errs, errors.New("set Brokers: the Kafka addresses of the invalidation topic (or a Bus)"))
	}
	if len(o.Brokers) > 0 && o.Bus != nil {
		errs = append(errs, errors.New("set Brokers or Bus, not both"))
	}
	if o.MaxBytes < minShardBytes {
		errs = append(errs, fmt.Errorf("raise MaxBytes: %d is below %d", o.MaxBytes, minShardBytes))
	}
	if o.Away > AwayDegraded {
		errs = append(errs, fmt.Errorf("set Away to AwayFail, AwayWait or AwayDegraded: %d is none of them", o.Away))
	}
	if o.MaxFloors < 0 {
		errs = append(errs, fmt.Errorf("raise MaxFloors: %d is negative", o.MaxFloors))
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"FloorAge", o.FloorAge}, {"ReplicaLag", o.ReplicaLag}, {"Silence", o.Silence}, {"RedisTimeout", o.RedisTimeout},
	} {
		if d.d < 0 {
			errs = append(errs, fmt.Errorf("raise %s: %v is negative", d.name, d.d))
		}
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
