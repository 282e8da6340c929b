package localsync

// pace tells whether the records of a stream are those of now. After an outage the
// records of the meantime come first: until they are through, the stream is as good
// as silent, and hearing the first of them is no reason to trust what is kept.
type pace struct {
	heard   bool
	usual   int64 // from sending to here, at best, of records that were of now
	behind  bool
	lagging int64 // since when
	began   int64 // the lag then
}

// current reports whether a record that was sent at sent, by the daemon's clock, is
// less than half of limit behind, and by how much it is: what was not heard for as long
// as that may have changed meanwhile. A clock is only compared with what it said before;
// one that was set, or another daemon's, is believed once its lag has stood still for
// limit: that of a backlog falls, that of a stream which is too slow grows.
func (p *pace) current(now, sent, limit int64) (late int64, ok bool) {
	lag := now - sent
	if !p.heard { // it was sent after the partition's end was pinned: what it lacks is clocks
		p.heard, p.usual = true, lag
	}
	if lag-p.usual <= limit/2 {
		p.behind, p.usual = false, min(p.usual, lag)
		return lag - p.usual, true
	}
	still, over := limit/30, p.behind && now-p.lagging >= limit
	switch {
	case !p.behind, lag < p.began-still, over && lag > p.began+still:
		p.behind, p.lagging, p.began = true, now, lag
	case over:
		p.behind, p.usual = false, lag
		return 0, true
	}
	return 0, false
}
