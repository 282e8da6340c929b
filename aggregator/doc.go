// Package aggregator folds row changes into the entries of modules. A module is
// a key space in Redis with a rule for its values: either the row image itself
// (from), or a document assembled from several tables (rebuild).
//
// Changes are collected in a dirty set in which the newest state per key wins.
// As soon as one flush has left, the next one takes whatever has gathered: no
// delay when traffic is low, large batches when it is high. A flush overwrites
// Redis first, broadcasts second and moves the checkpoint last.
//
// The package talks to no network. What it must ask of a database it asks
// through [Querier]; where entries go is behind [Sink].
package aggregator
