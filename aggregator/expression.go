package aggregator

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"github.com/rowtide/rowtide"
)

// expression is a filter or a computed field over a row's columns, in the
// language of github.com/expr-lang/expr. Integers are int, unsigned columns of 64
// bits too as long as they fit; DECIMAL columns are text, number() makes a float
// of them; times are time.Time.
type expression struct {
	text    string
	program *vm.Program
	columns []string
}

func number() expr.Option {
	return expr.Function("number", func(args ...any) (any, error) {
		switch x := args[0].(type) {
		case nil:
			return nil, nil
		case string:
			return strconv.ParseFloat(x, 64)
		}
		return nil, fmt.Errorf("number() of a %T", args[0])
	}, new(func(string) float64))
}

// parseExpression compiles without knowing the columns' types.
func parseExpression(text string) (*expression, error) {
	if strings.TrimSpace(text) == "" {
		return nil, fmt.Errorf("is missing")
	}
	names := &columnNames{seen: map[string]bool{}}
	program, err := expr.Compile(text, number(), expr.AllowUndefinedVariables(), expr.Patch(names))
	if err != nil {
		return nil, fmt.Errorf("%q: %s", text, firstLine(err))
	}
	return &expression{text: text, program: program, columns: slices.Sorted(maps.Keys(names.seen))}, nil
}

// columnNames collects the identifiers of an expression that name columns.
type columnNames struct{ seen map[string]bool }

// Visit implements ast.Visitor.
func (c *columnNames) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		c.seen[n.Value] = true
	case *ast.VariableDeclaratorNode:
		delete(c.seen, n.Name)
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			delete(c.seen, id.Value)
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// check compiles once more with the columns' types (DATA_TYPE in
// information_schema), and demands a boolean of a filter.
func (x *expression) check(types map[string]string, filter bool) error {
	env := map[string]any{}
	for name, t := range types {
		env[name] = sample(t)
	}
	opts := []expr.Option{expr.Env(env), number()}
	if filter {
		opts = append(opts, expr.AsBool())
	}
	if _, err := expr.Compile(x.text, opts...); err != nil {
		hint := ""
		for _, c := range x.columns {
			if types[c] == "decimal" {
				hint = "; DECIMAL columns are text, write number(" + c + ")"
			}
		}
		return fmt.Errorf("%q does not type-check: %s%s", x.text, firstLine(err), hint)
	}
	return nil
}

// sample is a value of the type that a column has in an expression.
func sample(dataType string) any {
	switch dataType {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit":
		return int(0)
	case "float", "double":
		return float64(0)
	case "datetime", "timestamp":
		return time.Time{}
	}
	return ""
}

// eval computes the expression over a row; cols are the indexes of x.columns.
// As in SQL, a NULL that the expression cannot digest makes the result NULL.
func (x *expression) eval(env map[string]any, row []rowtide.Value, cols []int) (any, error) {
	null := false
	for i, c := range cols {
		null = null || row[c] == nil
		env[x.columns[i]] = operand(row[c])
	}
	out, err := expr.Run(x.program, env)
	if err != nil {
		if null {
			return nil, nil //nolint:nilnil // NULL is a value here
		}
		return nil, fmt.Errorf("expression %q: %s", x.text, firstLine(err))
	}
	return out, nil
}

// operand gives the integers one type, so that columns of different width
// compare and add up, and text types one.
func operand(v rowtide.Value) any {
	switch x := v.(type) {
	case int8:
		return int(x)
	case int16:
		return int(x)
	case int32:
		return int(x)
	case int64:
		return int(x)
	case uint8:
		return int(x)
	case uint16:
		return int(x)
	case uint32:
		return int(x)
	case uint64:
		if n := int(x); n >= 0 { //nolint:gosec // what does not fit turns negative
			return n
		}
	case float32:
		return float64(x)
	case rowtide.JSON:
		return string(x)
	case []byte:
		return string(x)
	}
	return v
}

// result makes a column value of what an expression gave.
func result(v any) (rowtide.Value, error) {
	switch x := v.(type) {
	case nil, string, float64, time.Time, int64, uint64:
		return x, nil
	case int:
		return int64(x), nil
	case bool:
		if x {
			return rowtide.JSON("true"), nil
		}
		return rowtide.JSON("false"), nil
	}
	return nil, fmt.Errorf("gives a %T; want text, a number, a boolean or a time", v)
}
