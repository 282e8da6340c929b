// Package changes carries row changes from the one process that reads the log to
// those that apply them, over a Kafka topic that is partitioned by module key.
// Everything about one key is in one partition, in the order of the log.
//
//	reader:   source ── HandleTx ──► Writer ── records ──► topic
//	applier:  topic ──► Group ── HandleTx ──► aggregator ── Save ──► Group ── offsets
//
// # The record
//
// A Kafka record holds, for its partition, one or more transactions, or none: then
// it is a heartbeat. All integers are big endian; a uvarint is unsigned LEB128, a
// varint the same in zigzag, a text a uvarint and so many bytes of UTF-8.
//
//	 0  1  magic 0xC7
//	 1  1  format, 1
//	 2  2  reserved, 0
//	 4  8  watermark: all changes of this partition up to this version are in this
//	       record or before it; 0 is unknown
//	12  8  sent at, microseconds since 1970, the reader's clock
//	20  …  tables (uvarint how many): schema, name (texts), columns (uvarint, texts),
//	       primary key (uvarint, then the columns' places as uvarints)
//	    …  modules (uvarint how many): name (text), version (uvarint)
//	    …  transactions (uvarint how many), see below
//
// A transaction:
//
//	8  version
//	8  committed at, microseconds since 1970, the source's clock, 0 is unknown
//	…  file (text), end position (uvarint), GTID (text, empty without)
//	…  changes (uvarint how many): operation (1 byte: 1 insert, 2 update, 3 delete,
//	   4 read by a backfill, 5 truncate), table (uvarint, a place in the list), module (same),
//	   id (text), before, after (images)
//
// An image is a uvarint: 0 for none, else the number of values plus one, which is
// the table's number of columns plus one; then the values, a tag each:
//
//	 0      NULL
//	 1 …  4 signed integer of 8, 16, 32, 64 bits: varint
//	 5 …  8 unsigned integer of 8, 16, 32, 64 bits: uvarint
//	 9      FLOAT, 4 bytes of IEEE 754
//	10      DOUBLE, 8 bytes
//	11      text
//	12      time: seconds since 1970 (varint), nanoseconds (uvarint)
//	13      bytes: uvarint and so many bytes
//	14      JSON: the same
//
// A transaction has at most one change per key, its last, so that every state of a
// key has a version of its own. One that is too large for a record goes on in the
// next; the watermark does not cover it before its end. A reader that meets a
// higher format must stop: it cannot know what it would skip.
package changes
