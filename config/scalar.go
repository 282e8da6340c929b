package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// scalar is what a node says, for a field of type t. A string is the text as it
// stands: 0123 is not turned into a number and back.
func scalar(n *yaml.Node, t reflect.Type) (any, error) {
	if t.Kind() == reflect.Map || t.Kind() == reflect.Interface {
		v := reflect.New(t)
		err := n.Decode(v.Interface())
		return v.Elem().Interface(), err
	}
	if n.Kind != yaml.ScalarNode {
		return nil, fmt.Errorf("want %s, not %s", wanted(t), kindOf(n))
	}
	tag := n.ShortTag()
	if !strings.HasPrefix(tag, "!!") {
		return nil, fmt.Errorf("the tag %s has no meaning here; give the value itself", tag)
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return duration(n.Value, tag)
	case t.Kind() == reflect.String:
		return n.Value, nil
	case t.Kind() == reflect.Bool && tag == "!!bool",
		(isInt(t) || isFloat(t)) && tag == "!!int", isFloat(t) && tag == "!!float":
		v := reflect.New(t)
		if err := n.Decode(v.Interface()); err != nil {
			return nil, fmt.Errorf("%s is out of range; want %s", n.Value, strings.TrimSuffix(wanted(t), unquoted))
		}
		return v.Elem().Interface(), nil
	}
	return nil, fmt.Errorf("%q: want %s", n.Value, wanted(t))
}

func duration(text, tag string) (any, error) {
	if tag == "!!int" || tag == "!!float" {
		if text == "0" {
			return time.Duration(0), nil
		}
		return nil, fmt.Errorf("%s: want a duration with its unit, such as %ss", text, text)
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("%q: want %s", text, wanted(reflect.TypeFor[time.Duration]()))
	}
	return v, nil
}

func isInt(t reflect.Type) bool {
	v := reflect.Zero(t)
	return v.CanInt() || v.CanUint()
}

func isFloat(t reflect.Type) bool { return reflect.Zero(t).CanFloat() }

// bounds of an integer type; signed says whether it has a lower one but 0.
func bounds(t reflect.Type) (lowest int64, highest uint64) {
	bits := t.Bits()
	if reflect.Zero(t).CanUint() {
		return 0, 1<<bits - 1
	}
	return -1 << (bits - 1), 1<<(bits-1) - 1
}

// unquoted ends what is asked of a file; a variable knows no quotes.
const unquoted = ", without quotes"

// wanted names the values that a field of type t takes.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 500ms, 5s, 1m30s or 24h"
	case isInt(t) && t.Bits() == 64:
		return "a whole number" + unquoted
	case isInt(t):
		lowest, highest := bounds(t)
		return fmt.Sprintf("a whole number from %d to %d"+unquoted, lowest, highest)
	case isFloat(t):
		return "a number" + unquoted
	case t.Kind() == reflect.Bool:
		return "true or false" + unquoted
	}
	return "one value"
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys below it"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

// variableFault says what is wrong with text as a variable's value for a field of
// type t.
func variableFault(text string, t reflect.Type) error {
	if t.Kind() == reflect.Slice {
		return nil // its items are words between commas
	}
	_, err := scalar(&yaml.Node{Kind: yaml.ScalarNode, Value: text}, t)
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimSuffix(err.Error(), unquoted))
}
