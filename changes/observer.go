package changes

// Observer is told what the two ends do, for metrics. Its methods must not block
// and may be called from several goroutines.
type Observer interface {
	// Sent: so many changes in so many records were acknowledged.
	Sent(changes, records int)
	// ChangesAway: Kafka refuses records or the group cannot be talked to (err), or
	// it works again (nil).
	ChangesAway(err error)
	// Joined: this applier is a member of the group.
	Joined()
	// Claimed: this applier has the partition from now on, or no longer.
	Claimed(partition int32, ours bool)
	// Behind: so many records of the partition have not been applied yet.
	Behind(partition int32, records int64)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Sent implements Observer.
func (NopObserver) Sent(int, int) {}

// ChangesAway implements Observer.
func (NopObserver) ChangesAway(error) {}

// Joined implements Observer.
func (NopObserver) Joined() {}

// Claimed implements Observer.
func (NopObserver) Claimed(int32, bool) {}

// Behind implements Observer.
func (NopObserver) Behind(int32, int64) {}
