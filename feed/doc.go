// Package feed reads row changes from Kafka topics that another change capture
// (Canal, Debezium, Maxwell) fills, as package binlog reads them from the log.
//
//	topic partitions ── one follower each ── decode, group ──┐
//	                                                         ├── HandleTx, one at a time
//	Progress  ◄── offsets of acknowledged transactions ◄─────┘
//
// A version comes from the record: from the source position that it carries, or,
// without one, from its offset. docs/feeds.md has the rules,
// docs/adr/0011-change-feeds.md the reasons.
package feed
