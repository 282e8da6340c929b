package localsync

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// The defaults of [ModuleConfig].
const (
	DefaultTTL              = 24 * time.Hour
	DefaultRefresh          = time.Minute
	DefaultEmptyTTL         = 30 * time.Second
	DefaultEmptyRefresh     = 10 * time.Second
	DefaultMaxStale         = 5 * time.Second
	DefaultMaxStaleOptional = time.Minute
	DefaultBatch            = 100
	DefaultLoadTimeout      = 2 * time.Second
)

// NoLease as ModuleConfig.LeaseWait: every node loads what it lacks.
const NoLease time.Duration = -1

// OnError says what a read gives when nothing can be loaded.
type OnError uint8

const (
	// KeepLast serves the last value with Info.Stale, up to its hard age, and an
	// error when there is none: for what the page cannot be shown without. It is
	// the default.
	KeepLast OnError = iota + 1
	// Optional answers ErrNotFound with Info.Degraded for a few seconds, on this
	// node only: for what the page can be shown without.
	Optional
)

// Window is the pair of ages of an entry, both counted from when the value was
// last shown to be current.
type Window struct {
	// TTL is the hard age: past it the entry is gone.
	TTL time.Duration
	// Refresh is the soft age: a read past it returns the value and refreshes it
	// behind the reader.
	Refresh time.Duration
}

// ModuleConfig is one module's policy. Only Name has no default.
type ModuleConfig[K comparable] struct {
	// Name is the module's name in the daemon's configuration.
	Name string
	// Version is the module's version there; a bump is a new key space.
	//
	// Defaults to 1.
	Version uint16
	// Previous is the version that Version follows, for a node that is started with
	// Version before the daemon is: a key that Redis does not have is read from that
	// key space if the loader fails or there is none. Such a value is Stale, since the
	// row may have changed or gone, and not kept, since changes are announced for one
	// of the two only. Once the daemon writes Version, its word holds instead: it has
	// the former key space read while it fills the new one, and no longer.
	//
	// Zero reads Version only, until the daemon says otherwise.
	Previous uint16
	// TTL is the hard age of a value, here and for values that this node writes
	// to Redis. Jittered by a tenth either way, so that what was loaded together
	// does not expire together.
	//
	// Defaults to DefaultTTL.
	TTL time.Duration
	// Refresh is the soft age of a value, jittered like TTL.
	//
	// Defaults to DefaultRefresh.
	Refresh time.Duration
	// Empty are the ages of known-absent entries.
	//
	// Defaults to DefaultEmptyTTL and DefaultEmptyRefresh.
	Empty Window
	// OnError says what to do when loading fails.
	//
	// Defaults to KeepLast.
	OnError OnError
	// MaxStale is how old a value may be while the bus is silent before it is
	// checked against Redis.
	//
	// Defaults to DefaultMaxStale, or DefaultMaxStaleOptional for Optional.
	MaxStale time.Duration
	// Batch is the largest number of keys given to one call of the loader.
	//
	// Defaults to DefaultBatch.
	Batch int
	// LoadTimeout is the deadline of one load, reading Redis included. It is the
	// load's own: a reader that gives up does not end it (race R26).
	//
	// Defaults to DefaultLoadTimeout.
	LoadTimeout time.Duration
	// LeaseWait is how long a reader of a key that Redis lacks waits for another
	// node that loads it already, before its own node does too. What one load takes
	// should fit into half of it. Below LoadTimeout; NoLease turns waiting off.
	//
	// Defaults to half of LoadTimeout.
	LeaseWait time.Duration
	// Objects is how many decoded values are kept beside their bytes, and up to a quarter
	// and seven more, so that a read need not decode: about as many as the module has
	// popular keys. Their memory is not part of Options.MaxBytes. All readers get the
	// same value and must not change what it points to; they are never given one that
	// the bytes would not have been good for.
	//
	// Zero keeps none.
	Objects int
	// Pinned keeps the settings above as they are. Otherwise those that the daemon
	// gives the module (ttl, refresh, empty, on_error, max_stale of its file) are
	// in force from the next read on, whenever they change.
	Pinned bool
	// Key spells a key's id as the daemon's key template does.
	//
	// Defaults to the decimal or the text itself when K is an integer or string
	// type; required for any other K.
	Key func(K) string
}

// policy is a ModuleConfig with defaults, without the type of its keys.
type policy struct {
	name     string
	version  uint16
	previous uint16 // 0: none
	value    Window
	empty    Window
	onError  OnError
	maxStale time.Duration
	batch    int
	objects  int
	timeout  time.Duration
	// leaseWait is negative when nodes do not wait for one another.
	leaseWait time.Duration
	pinned    bool
	given     *policy // before defaults, for the debug page
}

func (c ModuleConfig[K]) policy() (policy, error) {
	p := policy{
		name: c.Name, version: c.Version, previous: c.Previous, value: Window{c.TTL, c.Refresh}, empty: c.Empty,
		onError: c.OnError, maxStale: c.MaxStale, batch: c.Batch, objects: c.Objects, timeout: c.LoadTimeout, leaseWait: c.LeaseWait, pinned: c.Pinned,
	}
	given := p
	p.given = &given
	setDefault(&p.version, 1)
	setDefault(&p.value.TTL, DefaultTTL)
	setDefault(&p.value.Refresh, min(DefaultRefresh, p.value.TTL))
	setDefault(&p.empty.TTL, DefaultEmptyTTL)
	setDefault(&p.empty.Refresh, min(DefaultEmptyRefresh, p.empty.TTL))
	setDefault(&p.onError, KeepLast)
	setDefault(&p.batch, DefaultBatch)
	setDefault(&p.timeout, DefaultLoadTimeout)
	setDefault(&p.leaseWait, p.timeout/2)
	if p.maxStale == 0 {
		p.maxStale = DefaultMaxStale
		if p.onError == Optional {
			p.maxStale = DefaultMaxStaleOptional
		}
	}
	return p, p.validate()
}

// maxObjects keeps a slip of the pen from being an allocation of gigabytes.
const maxObjects = 1 << 24

func (p *policy) validate() error {
	var errs []error
	if p.objects < 0 || p.objects > maxObjects {
		errs = append(errs, fmt.Errorf("a number of %d Objects is not within 0 and %d", p.objects, maxObjects))
	}
	if p.name == "" || strings.ContainsAny(p.name, ": \t\r\n") {
		errs = append(errs, fmt.Errorf("name %q must be set, without colons and blanks", p.name))
	}
	if p.onError != KeepLast && p.onError != Optional {
		errs = append(errs, fmt.Errorf("OnError %d is neither KeepLast nor Optional", p.onError))
	}
	if p.batch < 0 {
		errs = append(errs, fmt.Errorf("a Batch of %d is negative", p.batch))
	}
	for _, w := range []Window{p.value, p.empty} {
		if w.TTL < 0 || w.Refresh < 0 || w.Refresh > w.TTL {
			errs = append(errs, fmt.Errorf("a Refresh of %v does not fit a TTL of %v", w.Refresh, w.TTL))
		}
	}
	if p.maxStale < 0 || p.timeout < 0 {
		errs = append(errs, errors.New("MaxStale and LoadTimeout must not be negative"))
	}
	if p.leaseWait >= p.timeout && p.timeout > 0 {
		errs = append(errs, fmt.Errorf("a LeaseWait of %v leaves no time to load within a LoadTimeout of %v", p.leaseWait, p.timeout))
	}
	return errors.Join(errs...)
}

func (p *policy) window(empty bool) Window {
	w := p.value
	if empty {
		w = p.empty
	}
	return Window{TTL: jitter(w.TTL), Refresh: jitter(w.Refresh)}
}

// caps bounds the ages, in nanoseconds, of entries that were kept under longer
// ones; those kept under these are below, whatever their jitter.
func (p *policy) caps(empty bool) (soft, hard int64) {
	w := &p.value
	if empty {
		w = &p.empty
	}
	return int64(w.Refresh) / 10 * 11, int64(w.TTL) / 10 * 11
}

// jitter spreads d by a tenth either way.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
