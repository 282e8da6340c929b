package config

import "reflect"

// suggest names the key that is closest to a misspelt one, if any is within two
// edits: one that t has, else one of the whole config, such as one that stands in
// the wrong section.
func suggest(t, whole reflect.Type, key string) string {
	var here []string
	for k := range settings(t) {
		here = append(here, k)
	}
	if near := closest(key, here); near != "" {
		return near
	}
	return closest(key, knownKeys(whole, nil))
}

func closest(key string, known []string) string {
	best, distance := "", min(3, len(key))
	for _, k := range known {
		if d := edits(key, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func knownKeys(t reflect.Type, out []string) []string {
	for key, ft := range settings(t) {
		out = append(out, key)
		if ft.Kind() == reflect.Slice {
			ft = behind(ft.Elem())
		}
		if ft.Kind() == reflect.Struct {
			out = knownKeys(ft, out)
		}
	}
	return out
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}
