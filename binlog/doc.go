// Package binlog turns a MySQL or MariaDB server's binary log into whole
// committed transactions, and remembers how far they have been taken care of.
//
// It reads with go-mysql's BinlogSyncer and maps values to column names with the
// metadata that each event carries (binlog_row_metadata=FULL), never with the
// schema of today: an event may be older than the last ALTER.
//
// The package holds everything that knows a server's dialect: preflight checks,
// the start and resume of a stream, the checkpoint, and [Reader], which selects
// rows in the same canonical values that the log yields.
package binlog
