// Package rowtide holds the nouns that every part of Rowtide shares: what a
// committed row change is, what order changes have, what an entry in Redis and
// an invalidation on Kafka look like byte by byte. It imports the standard
// library only, so a web node that links it links nothing else.
//
// # The model
//
// A source (package binlog) turns the server's log into whole transactions
// ([Tx]). The aggregator maps their row changes to keys ([Key]) of modules and
// keeps the newest state per key. The publisher overwrites Redis with one
// [Entry] per key if, and only if, its [Version] is not older than what is
// there, then broadcasts one [Invalidation] per key over Kafka, and only when
// both are acknowledged does the checkpoint move. Every web node raises a floor
// per key from the invalidations and never serves or keeps anything below it.
//
// A deleted row is an overwrite too: with an EMPTY entry, which carries a
// version like any other and so keeps late writers out.
//
// A crash at any point replays from the checkpoint. Replay is harmless, because
// a Version is made from the log's own coordinates: the same event always has
// the same Version, whichever daemon reads it, however often.
package rowtide
