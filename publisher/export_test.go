package publisher

// SlotOf is for the tests that need keys of one slot.
var SlotOf = slotOf

// WithLanes is for measuring how many pay.
func WithLanes(n int) RedisOption { return func(r *Redis) { r.lanes = n } }
