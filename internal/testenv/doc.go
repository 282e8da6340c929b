// Package testenv starts private, real servers: MariaDB, MySQL, Redis and
// Apache Kafka, and franz-go's in-process Kafka stand-in. `rowtide demo` runs
// on them and so do the tests.
//
// Every server listens on a free port of 127.0.0.1, keeps its data and its log
// in one folder, and dies with the process that started it, however that
// process ends. A Start function returns when a real connection has been
// answered. A server can be stopped, killed, paused and started again on the
// same data and port, which is what the failure tests are made of.
//
// Nothing is downloaded here: `make setup` installs the binaries, and a missing
// one is [ErrNotInstalled].
//
// Integration tests use the servers that `make test` has started once for the
// whole run (see [MariaDB], [MySQL], [Redis], [Kafka]) and keep apart by
// [UniqueName]; a test that kills or reconfigures a server starts its own.
package testenv
