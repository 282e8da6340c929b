// Package hints is what the daemon and the nodes agree on about hints: news of
// changes over Redis, ahead of Kafka.
package hints

// Channel is where a prefix's hints are told.
func Channel(prefix string) string { return prefix + ":~hints" }
