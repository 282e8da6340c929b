package simulation

import "time"

// rates say how much happens and how much goes wrong. Means are of exponential
// gaps; a span is uniform. Nothing here is a measurement of any real system: the
// faults are made far more frequent than life, so that their meetings happen.
type rates struct {
	fleet, keys, readers int
	partitions           int32 // as localsync counts them

	commitEvery time.Duration // mean gap between transactions
	severalKeys float64       // of transactions change two or three rows
	hotKeys     float64       // of changes hit the first ten keys
	deletes     float64       // of changes to a row that is there
	readEvery   time.Duration // mean gap of one reader
	readKeys    int           // per read

	invisible    float64 // of commits reach the binlog before a SELECT sees them
	invisibleFor time.Duration
	replicaReads float64 // of loads read a replica
	replicaLag   time.Duration
	loadTime     time.Duration // every load, up to
	slowLoads    float64
	slowLoadTime time.Duration // on top, up to
	loadErrors   float64
	loadTimeout  time.Duration // of one load, at a node; 0: localsync's own
	maxFloors    int           // changes that a node remembers; 0: localsync's own

	redisTime   time.Duration // one way, up to
	redisPauses float64       // of a node's Redis calls: the answer is late (a pause of the process)
	redisPause  time.Duration
	evictEvery  time.Duration // Redis drops one key
	failEvery   time.Duration // Redis fails over to a replica
	failLoses   [2]time.Duration
	failDown    time.Duration

	busTime    time.Duration // record to node, up to
	fetchMost  int           // records of a partition that one fetch brings: how fast a node catches up
	lost       float64       // of records, at one node
	late       float64       // of records come to one node a second time
	lateBy     time.Duration
	acksLost   float64 // of sends to Kafka: written, but not acknowledged
	sendTime   time.Duration
	hintsLost  float64
	hushEvery  time.Duration // a node hears nothing
	hush       [2]time.Duration
	hushedLost float64 // of those: what came meanwhile is gone from the log

	zombies  float64 // of commits are written, or only broadcast, once more by a daemon that was deposed
	zombieBy [2]time.Duration

	killEvery   time.Duration // the daemon
	downFor     [2]time.Duration
	restarts    time.Duration // each node
	sourceEvery time.Duration // the source fails over: a new log, whose positions start again
	massEvery   time.Duration // one transaction changes a quarter of all rows, and the module's generation is raised
	bumpEvery   time.Duration // the daemon, and some time before or after it each node, goes on with a new key space
}

// never is longer than any world lasts.
const never = 1000 * time.Hour

// usual are those of the design's test A where it names one; the rest is chosen to
// let each protection matter.
func usual() rates {
	const ms = time.Millisecond
	return rates{
		fleet: 8, keys: 400, partitions: 4, readers: 2,
		commitEvery: 2 * ms, severalKeys: 0.2, hotKeys: 0.1, deletes: 0.05,
		readEvery: 30 * ms, readKeys: 20,

		invisible: 0.2, invisibleFor: 15 * ms,
		replicaReads: 0.5, replicaLag: 300 * ms,
		loadTime: 40 * ms, slowLoads: 0.05, slowLoadTime: 900 * ms, loadErrors: 0.02,

		redisTime: ms, redisPauses: 0.02, redisPause: 200 * ms,
		evictEvery: 50 * ms, failEvery: 20 * time.Second, failLoses: [2]time.Duration{100 * ms, 200 * ms}, failDown: 100 * ms,

		busTime: 20 * ms, fetchMost: 100, lost: 5e-4, late: 0.01, lateBy: 3 * time.Second,
		acksLost: 1e-3, sendTime: 4 * ms, hintsLost: 0.05,
		hushEvery: 60 * time.Second, hush: [2]time.Duration{500 * ms, 8 * time.Second}, hushedLost: 0.25,

		zombies: 0.002, zombieBy: [2]time.Duration{50 * ms, 2050 * ms},

		killEvery: 10 * time.Second, downFor: [2]time.Duration{50 * ms, 250 * ms},
		restarts: 15 * time.Second, sourceEvery: 45 * time.Second,
		massEvery: 10 * time.Second, bumpEvery: 20 * time.Second,
	}
}
