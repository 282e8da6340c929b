package aggregator

import (
	"errors"
	"fmt"
	"strings"
)

// statement is a query with named parameters, ready to be bound by position.
type statement struct {
	parts  []string // one more than params
	params []string
}

// parseStatement finds the ":name" parameters outside of quotes, back-quotes and
// comments.
func parseStatement(q string) (statement, error) {
	var s statement
	start := 0
	for i := 0; i < len(q); {
		switch c := q[i]; {
		case c == '\'' || c == '"' || c == '`':
			end := closing(q, i)
			if end < 0 {
				return s, fmt.Errorf("has a %c that is not closed: %.60q", c, q)
			}
			i = end + 1
		case c == '#', strings.HasPrefix(q[i:], "-- "), strings.HasPrefix(q[i:], "--\t"), strings.HasPrefix(q[i:], "--\n"):
			end := strings.IndexByte(q[i:], '\n')
			if end < 0 {
				end = len(q) - i
			}
			i += end
		case strings.HasPrefix(q[i:], "/*"):
			end := strings.Index(q[i:], "*/")
			if end < 0 {
				return s, errors.New("has a comment that is not closed")
			}
			i += end + 2
		case c == ':' && i+1 < len(q) && isName(q[i+1]):
			end := i + 1
			for end < len(q) && isName(q[end]) {
				end++
			}
			s.parts = append(s.parts, q[start:i])
			s.params = append(s.params, q[i+1:end])
			i, start = end, end
		default:
			i++
		}
	}
	s.parts = append(s.parts, q[start:])
	return s, nil
}

// closing is the place of the quote that ends the one at i, or -1. A backslash
// takes the next character's meaning away, but not in a name.
func closing(q string, i int) int {
	for j := i + 1; j < len(q); j++ {
		switch {
		case q[j] == q[i]:
			return j
		case q[j] == '\\' && q[i] != '`':
			j++
		}
	}
	return -1
}

func isName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// bind writes the query with as many question marks per parameter as it has
// values, and lines the values up.
func (s statement) bind(values func(param string) []any) (query string, args []any) {
	var b strings.Builder
	for i, p := range s.params {
		b.WriteString(s.parts[i])
		vs := values(p)
		for j := range vs {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteByte('?')
		}
		args = append(args, vs...)
	}
	b.WriteString(s.parts[len(s.params)])
	return b.String(), args
}
