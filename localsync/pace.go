package localsync

// pace tells whether the records of a stream are those of now. After an outage the
// records of the meantime come first: until they are through, the stream is as good
// as silent, and hearing the first of them is no reason to trust what is kept.
type pace struct {
	usual   int64 // from sending to here, of the last record that was of now
	behind  bool
	lagging int64 // since when
}

// current reports whether a record that was sent at sent, by the daemon's clock, is
// less than limit behind. A clock is only compared with what it said before; one that
// was set, or another daemon's, is believed after limit.
func (p *pace) current(now, sent, limit int64) bool {
	lag := now - sent
	if lag-p.usual > limit {
		if !p.behind {
			p.behind, p.lagging = true, now
		}
		if now-p.lagging < limit {
			return false
		}
	}
	p.behind, p.usual = false, lag
	return true
}
