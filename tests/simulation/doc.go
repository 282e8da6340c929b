// Package simulation runs the real daemon stages and real nodes against a
// database, a Redis and a Kafka in memory, under a virtual clock and faults drawn
// from one seed, and counts stale copies. It has tests only; see nines_test.go,
// and docs/adr/0018-simulation.md for what it can tell and what not.
package simulation
