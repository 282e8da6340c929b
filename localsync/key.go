package localsync

import (
	"errors"
	"reflect"
	"strconv"
)

// speller spells the ids of a module's keys. It is a switch and not a function
// value, so that the caller's buffer can stay on its stack.
type speller[K comparable] struct {
	form form
	own  func(K) string
}

type form uint8

const (
	formOwn form = iota + 1
	formString
	formInt64
	formInt
	formUint64
	// The rest, and named types, go through reflection, which allocates.
	formAnyString
	formAnyInt
	formAnyUint
)

// newSpeller takes the module's own function, or the plain form of integers and
// strings.
func newSpeller[K comparable](own func(K) string) (speller[K], error) {
	if own != nil {
		return speller[K]{formOwn, own}, nil
	}
	var zero K
	switch any(zero).(type) {
	case string:
		return speller[K]{form: formString}, nil
	case int64:
		return speller[K]{form: formInt64}, nil
	case int:
		return speller[K]{form: formInt}, nil
	case uint64:
		return speller[K]{form: formUint64}, nil
	}
	t := reflect.TypeFor[K]()
	switch kind := t.Kind(); {
	case kind == reflect.String:
		return speller[K]{form: formAnyString}, nil
	case kind >= reflect.Int && kind <= reflect.Int64:
		return speller[K]{form: formAnyInt}, nil
	case kind >= reflect.Uint && kind <= reflect.Uint64:
		return speller[K]{form: formAnyUint}, nil
	default:
		return speller[K]{}, errors.New("set Key: " + t.String() + " is neither an integer nor a string type")
	}
}

func (s *speller[K]) append(dst []byte, k K) []byte {
	switch s.form {
	case formOwn:
		return append(dst, s.own(k)...)
	case formString:
		return append(dst, any(k).(string)...)
	case formInt64:
		return strconv.AppendInt(dst, any(k).(int64), 10)
	case formInt:
		return strconv.AppendInt(dst, int64(any(k).(int)), 10)
	case formUint64:
		return strconv.AppendUint(dst, any(k).(uint64), 10)
	case formAnyString:
		return append(dst, reflect.ValueOf(k).String()...)
	case formAnyInt:
		return strconv.AppendInt(dst, reflect.ValueOf(k).Int(), 10)
	case formAnyUint:
		return strconv.AppendUint(dst, reflect.ValueOf(k).Uint(), 10)
	}
	return dst
}
