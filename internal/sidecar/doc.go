// Package sidecar serves one node's cache to programs in other languages, as a
// subset of Redis's protocol and over HTTP. It reads only: what is in the cache
// comes from the database through the daemon.
//
// A connection has one goroutine. It answers in order, holds at most one request
// of Config.MaxRequest bytes and one reply, and ends when a reply is not taken
// within Config.WriteTimeout or nothing was asked for Config.IdleTimeout.
//
// Replies are written with redcon. Its request reader and its server are not
// used: a bulk length of 2^63-1 makes the reader index out of range, requests
// have no bound, writes no deadline (docs/adr/0020-sidecar.md).
package sidecar
