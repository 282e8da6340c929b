package localsync

import (
	"encoding/json"
	"fmt"
)

// Codec turns values into the bytes that Redis and the local store hold. It
// must agree with what the daemon writes for the module; that is JSON unless the
// module says otherwise. Implementations are used by many goroutines at once.
type Codec[V any] interface {
	// Append appends v's encoding to dst.
	Append(dst []byte, v V) ([]byte, error)
	// Decode reads a value. The result may alias b, which is the caller's own
	// copy; b is never changed afterwards.
	Decode(b []byte) (V, error)
}

// JSON is the codec of modules whose values are JSON documents. The document null is
// one like any other: a loader that gives a nil pointer, slice or map under a key says
// that the thing is there and is null, and readers get that nil without an error. What
// is absent the loader leaves out. For a V that cannot be nil, null is the zero value.
func JSON[V any]() Codec[V] { return jsonCodec[V]{} }

type jsonCodec[V any] struct{}

func (jsonCodec[V]) Append(dst []byte, v V) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("encode %T: %w", v, err)
	}
	return append(dst, b...), nil
}

func (jsonCodec[V]) Decode(b []byte) (V, error) {
	var v V
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// Bytes is the codec of modules whose values are used as they are, such as a
// rendered page. A decoded value must not be changed by the caller. No bytes at all
// are a value, too; nil and empty are one, of which readers get either.
func Bytes() Codec[[]byte] { return bytesCodec{} }

type bytesCodec struct{}

func (bytesCodec) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }

func (bytesCodec) Decode(b []byte) ([]byte, error) { return b, nil }
