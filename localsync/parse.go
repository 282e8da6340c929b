package localsync

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/rowtide/rowtide"
)

// errOwnSpelling means that only the application knows what key has a spelling.
var errOwnSpelling = errors.New("the module spells its keys with a function of its own, which cannot be turned round")

// parse finds the key that id spells, and its one spelling.
func (s *speller[K]) parse(id string) (typed any, spelled string, err error) {
	if s.form == formOwn {
		return nil, "", errOwnSpelling
	}
	var k K
	v := reflect.ValueOf(&k).Elem()
	bits := 0
	if v.Kind() != reflect.String {
		bits = v.Type().Bits()
	}
	switch {
	case v.CanInt():
		var n int64
		n, err = strconv.ParseInt(id, 10, bits)
		v.SetInt(n)
	case v.CanUint():
		var n uint64
		n, err = strconv.ParseUint(id, 10, bits)
		v.SetUint(n)
	default:
		v.SetString(id)
	}
	if err != nil {
		return nil, "", fmt.Errorf("its keys are of type %s: %w", v.Type(), errors.Unwrap(err))
	}
	return k, string(s.append(nil, k)), nil
}

func (m *core) rowtideKey(id string) rowtide.Key {
	return rowtide.Key{Module: m.policy.name, Version: m.policy.version, ID: id}
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }
