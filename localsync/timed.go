package localsync

import "time"

// Timed is a codec for values of which something depends on the hour: at gives
// what v is at now, and every read applies it, at whatever level v was found, so
// that a ticket goes on sale to the second however long ago its row was decoded.
// at is called by many goroutines, must not change what v points to, and is given the
// nil of a JSON null like any other value.
func Timed[V any](c Codec[V], at func(v V, now time.Time) V) Codec[V] { return timed[V]{c, at} }

type timed[V any] struct {
	Codec[V]
	at func(V, time.Time) V
}
