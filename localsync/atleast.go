package localsync

import (
	"context"
	"errors"

	"github.com/rowtide/rowtide"
)

type atLeastKey struct{}

// ErrNothingHeard means that this node has not heard enough of the daemon yet.
var ErrNothingHeard = errors.New("nothing was heard of the daemon yet")

// AtLeast returns a context whose reads give no value from before v, for reading one's
// own writes: [Cache.VersionAt] makes v of the place in the log. Until this node has
// heard of all changes up to v, some milliseconds after the commit as a rule, a local or
// Redis value below v is passed over and the loader asked instead; what cannot be proven
// to be at v comes back with Info.Stale. From then on reads are as without it.
func AtLeast(ctx context.Context, v rowtide.Version) context.Context {
	return context.WithValue(ctx, atLeastKey{}, max(v, atLeast(ctx)))
}

func atLeast(ctx context.Context) rowtide.Version {
	v, _ := ctx.Value(atLeastKey{}).(rowtide.Version)
	return v
}

// unmet is want while a change up to there may be unheard of, of the keys of part.
func (c *Cache) unmet(want rowtide.Version, part uint16) rowtide.Version {
	if want == 0 || uint64(want) <= c.parts[part].toldTo.Load() {
		return 0
	}
	return want
}

// VersionAt is the version of the transaction that ends there in the source's binary log:
// what SHOW BINARY LOG STATUS (MySQL), or SHOW MASTER STATUS (MariaDB), shows right after a
// COMMIT on the server that the daemon follows is at or behind it. It is of the epoch that
// this node heard of last, which after a failover of the source is the new one once the
// daemon has gone on. The error is ErrNothingHeard, or that there is no such file or place.
func (c *Cache) VersionAt(file string, pos uint64) (rowtide.Version, error) {
	known := c.marks.latest()
	if known == 0 {
		return 0, ErrNothingHeard
	}
	n, err := rowtide.FileNumber(file)
	if err != nil {
		return 0, err
	}
	return rowtide.NewVersion(known.Epoch(), n, pos)
}
