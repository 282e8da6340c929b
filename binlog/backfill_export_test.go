package binlog

// SetChunkRows makes all chunks of one size, each saved when it is covered.
func (b *Backfiller) SetChunkRows(n int) { b.limit, b.most, b.every = n, n, 0 }
