package publisher

// Layout says in what form a module's entries stand in Redis.
type Layout uint8

// The layouts.
const (
	// LayoutEnvelope is one key with version and value in one; see
	// docs/envelope.md.
	LayoutEnvelope Layout = iota + 1
	// LayoutPlain keeps the bare value under the key, for readers that were there
	// before, and its version under a second key.
	LayoutPlain
)
