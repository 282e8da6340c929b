// Package stockapi sells stock from Redis at rush speed and keeps MySQL exact.
//
// # The loop
//
// A [Service] decides in Redis. One Lua script per operation tests idempotency,
// the sale's window (by the clock of Redis), all purchase limits and the stock of
// all items, then deducts, records the hold and appends one event to the cell's
// outbox stream, all of it or nothing. The [Relay] moves the outbox to Kafka, in
// order. The [Ledger] applies the events to MySQL, stock row and detail row in
// one transaction, and compares each stock row with what the counter in Redis was
// after the same event. The binlog carries the rows on into the display caches,
// which can never touch a live counter.
//
// # States
//
//	NEW ──► HELD ──► CONFIRMED | CANCELLED | EXPIRED
//
// A hold leaves HELD once. Only the scripts change states; MySQL repeats them in
// the order of the log. A confirm wins for as long as the hold is HELD, even past
// the deadline that the buyer was shown: the sweeper waits a grace longer.
//
// # Cells
//
// A cell is the unit of order: its counters, holds, limits, deadlines and outbox
// share one cluster slot by the tag {event:cell}, and its events carry a dense
// sequence. So whoever reads them detects every loss, repetition and reordering by
// arithmetic. An event has one cell so far.
//
//	s:{e:c}:c         hash    ep, mode, seq, pub, vat, sat, end; per SKU av:, hd:, sd:, ld:
//	s:{e:c}:u:<uid>   hash    purchase limit counters of a user
//	s:{e:c}:h:<hold>  string  the hold, packed; it is the idempotency record too
//	s:{e:c}:x         zset    hold -> hard deadline, ms
//	s:{e:c}:o         stream  the outbox; entry ids are epoch-seq
//	s:events          set     the events that were ever loaded
//
// # What holds
//
// At any time per cell and SKU: no counter is negative (I1); loaded = available +
// held + sold, in Redis and in MySQL (I2); MySQL's available equals avail_after of
// the newest applied event (I3); confirmed quantity never exceeds what was loaded
// (I6); the details of holds sum up to held and sold (I7). [Checker] tests all of
// them on a live system.
package stockapi
