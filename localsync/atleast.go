package localsync

import (
	"context"

	"github.com/rowtide/rowtide"
)

type atLeastKey struct{}

// AtLeast returns a context whose reads give no value older than v, for reading
// one's own writes: a local or Redis value below v is passed over and the loader
// asked instead. A value that cannot be proven to be at v comes back with
// Info.Stale. It binds reads of keys that v's transaction changed; for any other
// key it only costs a load.
func AtLeast(ctx context.Context, v rowtide.Version) context.Context {
	return context.WithValue(ctx, atLeastKey{}, max(v, atLeast(ctx)))
}

func atLeast(ctx context.Context) rowtide.Version {
	v, _ := ctx.Value(atLeastKey{}).(rowtide.Version)
	return v
}
