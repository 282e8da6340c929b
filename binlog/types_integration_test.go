//go:build integration

package binlog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// column is a type and values to put into it, each with the JSON it must become
// where that is worth saying.
type column struct {
	typ    string
	only   string // flavour
	values []string
	want   map[string]string
}

func allColumns() []column {
	cols := []column{
		{typ: "TINYINT", values: []string{"-128", "0", "127"}, want: map[string]string{"-128": "-128"}},
		{typ: "TINYINT UNSIGNED", values: []string{"0", "128", "255"}, want: map[string]string{"255": "255"}},
		{typ: "BOOLEAN", values: []string{"TRUE", "FALSE"}, want: map[string]string{"TRUE": "1"}},
		{typ: "SMALLINT", values: []string{"-32768", "32767"}},
		{typ: "SMALLINT UNSIGNED", values: []string{"0", "65535"}, want: map[string]string{"65535": "65535"}},
		{typ: "MEDIUMINT", values: []string{"-8388608", "-1", "8388607"}, want: map[string]string{"-8388608": "-8388608"}},
		{typ: "MEDIUMINT UNSIGNED", values: []string{"0", "8388608", "16777215"}, want: map[string]string{"16777215": "16777215"}},
		{typ: "INT", values: []string{"-2147483648", "2147483647"}},
		{typ: "INT UNSIGNED", values: []string{"0", "4294967295"}, want: map[string]string{"4294967295": "4294967295"}},
		{typ: "INT(8) ZEROFILL", values: []string{"42"}, want: map[string]string{"42": "42"}},
		{typ: "BIGINT", values: []string{"-9223372036854775808", "9223372036854775807"}},
		{typ: "BIGINT UNSIGNED", values: []string{"0", "9223372036854775808", "18446744073709551615"}, want: map[string]string{"18446744073709551615": "18446744073709551615"}},
		{typ: "DECIMAL(65,30)", values: []string{"12345678901234567890123456789012345.123456789012345678901234567891", "-0.000000000000000000000000000001", "0"}},
		{typ: "DECIMAL(10,2)", values: []string{"0", "-0.05", "1.5", "99999999.99", "-99999999.99"}, want: map[string]string{"1.5": `"1.50"`, "0": `"0.00"`, "-0.05": `"-0.05"`}},
		{typ: "DECIMAL(5,0)", values: []string{"0", "99999", "-1"}},
		{typ: "DECIMAL(9,9)", values: []string{"0.000000001", "0.999999999"}},
		{typ: "FLOAT", values: []string{"1.1", "-0.1", "3.402823466e38", "1.175494351e-38", "16777217", "0"}, want: map[string]string{"1.1": "1.1"}},
		{typ: "DOUBLE", values: []string{"1.1", "1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "0", "1e22"}, want: map[string]string{"1.1": "1.1"}},
		{typ: "YEAR", values: []string{"1901", "2155", "0"}, want: map[string]string{"2155": "2155", "0": "0"}},
		{typ: "DATE", values: []string{"'2026-11-21'", "'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2026-00-00'", "'2026-11-00'"}, want: map[string]string{"'0000-00-00'": `"0000-00-00"`, "'2026-11-21'": `"2026-11-21"`}},
		{typ: "BINARY(4)", values: []string{"X'61620000'", "X''", "X'FF00FF00'"}, want: map[string]string{"X'61620000'": `"YWIAAA=="`}},
		{typ: "BINARY(255)", values: []string{"X'61'"}},
		{typ: "VARBINARY(300)", values: []string{"X'61620000'", "X''", "X'FF'", "REPEAT('a',300)"}, want: map[string]string{"X'FF'": `"/w=="`}},
		{typ: "TINYBLOB", values: []string{"X'00FF'", "X''"}},
		{typ: "BLOB", values: []string{"X'00FF'", "REPEAT('a',70000)"}},
		{typ: "MEDIUMBLOB", values: []string{"REPEAT(X'FE',70000)"}},
		{typ: "LONGBLOB", values: []string{"X'00'"}},
		{typ: `ENUM('a,b','c''d','"q"','é ☀','')`, values: []string{"'a,b'", "'c''d'", `'"q"'`, "'é ☀'", "''", "'not a member'"}, want: map[string]string{"'a,b'": `"a,b"`, "'c''d'": `"c'd"`, "'é ☀'": `"é ☀"`, "'not a member'": `""`}},
		{typ: "ENUM('é','ü') CHARACTER SET latin1", values: []string{"'é'", "'ü'"}, want: map[string]string{"'é'": `"é"`}},
		{typ: "SET('x','y''z','\"q\"','é')", values: []string{"''", "'x'", "'x,y''z'", "'é,\"q\",x'"}, want: map[string]string{"'é,\"q\",x'": `"x,\"q\",é"`}},
		{typ: "SET('é','ü') CHARACTER SET latin1", values: []string{"'é,ü'"}, want: map[string]string{"'é,ü'": `"é,ü"`}},
		{typ: "SET(" + members(64) + ")", values: []string{"'m0,m63'", "'m63'", "18446744073709551615"}, want: map[string]string{"'m0,m63'": `"m0,m63"`}},
		{typ: "ENUM(" + members(300) + ")", values: []string{"'m0'", "'m299'"}, want: map[string]string{"'m299'": `"m299"`}},
		{typ: "JSON", values: []string{
			`'{"b": 1.0, "aa": "x", "c": [1, 2, {"d": null}], "e": "é ☀ \\" \\\\ \\n"}'`, `'[]'`, `'"text"'`, `'1'`, `'-1.5e10'`, `'18446744073709551615'`, `'-9223372036854775808'`, `'true'`, `'null'`, `'1e100'`, `'0.1'`, `'{}'`,
		}},
		{typ: "JSON", only: testenv.FlavorMySQL, values: []string{
			"JSON_OBJECT('d', CAST('1.50' AS DECIMAL(5,2)), 't', CAST('2026-11-21 08:09:10.5' AS DATETIME(6)), 'x', CAST('08:09:10' AS TIME), 'y', CAST('2026-11-21' AS DATE))",
			"JSON_OBJECT('f', 1.1E0, 'b', CAST(X'00FF' AS BINARY))",
			"JSON_ARRAY(" + strings.Repeat("'0123456789',", 8000) + "1)", // large format
		}},
		{typ: "GEOMETRY", values: []string{"ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1,2 2)')"}},
		{typ: "POINT", values: []string{"ST_GeomFromText('POINT(1.5 -2.5)')"}},
		{typ: "VECTOR(3)", only: testenv.FlavorMySQL, values: []string{"TO_VECTOR('[1,2,3]')"}},
	}
	for _, n := range []int{1, 7, 8, 9, 17, 63, 64} {
		cols = append(cols, column{typ: fmt.Sprintf("BIT(%d)", n), values: []string{"0", "1", fmt.Sprintf("b'%s'", strings.Repeat("1", n))}})
	}
	for fsp := range 7 {
		frac := "." + strings.Repeat("1", fsp)
		if fsp == 0 {
			frac = ""
		}
		cols = append(
			cols,
			column{typ: fmt.Sprintf("DATETIME(%d)", fsp), values: []string{"'2026-11-21 08:09:10" + frac + "'", "'2026-11-21 08:09:10'", "'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'", "'2026-00-00 00:00:00" + frac + "'"}, want: map[string]string{
				"'2026-11-21 08:09:10'": `"2026-11-21T08:09:10Z"`, "'0000-00-00 00:00:00'": `"0000-00-00 00:00:00"`,
			}},
			// The session is in +05:30.
			column{typ: fmt.Sprintf("TIMESTAMP(%d) NULL", fsp), values: []string{"'2026-11-21 08:09:10" + frac + "'", "'2026-11-21 08:09:10'", "'1970-01-02 05:30:01'", "'2038-01-19 03:14:07'", "0"}, want: map[string]string{
				"'2026-11-21 08:09:10'": `"2026-11-21T02:39:10Z"`, "0": `"0000-00-00 00:00:00"`,
			}},
			column{typ: fmt.Sprintf("TIME(%d)", fsp), values: []string{"'08:09:10" + frac + "'", "'08:09:10.5'", "'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01" + frac + "'", "'00:00:00" + frac + "'"}},
		)
	}
	for cs, text := range map[string]string{
		"utf8mb4": "é ☀ 😀", "latin1": "é € ü", "gbk": "中文 é", "gb2312": "中文", "big5": "中文", "cp1251": "привет", "koi8r": "привет", "latin2": "řč", "greek": "αβγ",
		"hebrew": "שלום", "sjis": "日本語", "cp932": "日本語①", "ujis": "日本語", "euckr": "한국어", "utf16": "é ☀ 😀", "utf16le": "é ☀ 😀", "utf32": "é ☀ 😀", "ucs2": "é ☀", "ascii": "plain",
		"latin5": "ğış", "latin7": "ąč", "cp1250": "řč", "cp1256": "سلام", "cp1257": "ąč", "cp850": "éü", "cp852": "řč", "cp866": "привет", "koi8u": "їжак", "tis620": "ภาษา", "macroman": "é",
	} {
		val := "'" + text + "  '"
		cols = append(cols, column{
			typ: "VARCHAR(40) CHARACTER SET " + cs, values: []string{"'" + text + "'", val, "''"},
			want: map[string]string{"'" + text + "'": string(rowtide.AppendJSONString(nil, text)), val: string(rowtide.AppendJSONString(nil, text+"  "))},
		})
		if slices.Contains([]string{"utf8mb4", "latin1", "gbk", "utf16"}, cs) {
			for _, typ := range []string{"CHAR(10)", "CHAR(60)", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT"} {
				cols = append(cols, column{typ: typ + " CHARACTER SET " + cs, values: []string{"'" + text + "'", "''"}, want: map[string]string{"'" + text + "'": string(rowtide.AppendJSONString(nil, text))}})
			}
		}
	}
	return cols
}

// sameJSON compares documents by meaning: go-mysql spells large doubles out where
// the server writes an exponent.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func members(n int) string {
	var m []string
	for i := range n {
		m = append(m, fmt.Sprintf("'m%d'", i))
	}
	return strings.Join(m, ",")
}

// THE test of the decoder: whatever a column's type, what the log says of a row
// is what a SELECT says of it.
func TestValues_LogEqualsSelect(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		d.exec("SET NAMES utf8mb4", "SET SESSION sql_mode='NO_ENGINE_SUBSTITUTION'", "SET SESSION time_zone='+05:30'")
		var watched []string
		var cols []column
		for _, c := range allColumns() {
			if c.only == "" || c.only == target.Flavor {
				cols = append(cols, c)
			}
		}
		for i, c := range cols {
			d.exec(fmt.Sprintf("CREATE TABLE t%d (id INT PRIMARY KEY, v %s) CHARACTER SET utf8mb4", i, c.typ))
			watched = append(watched, fmt.Sprintf("%s.t%d", d.schema, i))
		}
		cfg := d.config()
		cfg.StartAt = d.head()
		n := 0
		for i, c := range cols {
			for j, v := range append(slices.Clone(c.values), "NULL") {
				d.exec(fmt.Sprintf("INSERT INTO t%d VALUES (%d, %s)", i, j, v))
				n++
			}
		}
		s := follow(t, cfg, &memory{}, newRecorder(), watched...)
		s.await(fmt.Sprintf("%d rows", n), func(b []string) bool { return len(b) >= n })
		s.stop()
		reader := s.src.Reader()
		for _, tx := range s.rec.txs {
			for _, c := range tx.Changes {
				var i int
				if _, err := fmt.Sscanf(c.Table.Name, "t%d", &i); err != nil {
					t.Fatal(err)
				}
				j := int(c.After[0].(int32))
				label := cols[i].typ + " NULL"
				if j < len(cols[i].values) {
					label = cols[i].typ + " " + cols[i].values[j]
				}
				if len(label) > 100 {
					label = label[:100] + "…"
				}
				_, rows, err := reader.Query(testContext(t), fmt.Sprintf("SELECT id, v FROM %s WHERE id = ?", c.Table), j)
				if err != nil || len(rows) != 1 {
					t.Fatalf("%s: %d rows, %v", label, len(rows), err)
				}
				logged, err := rowtide.AppendValue(nil, c.After[1])
				if err != nil {
					t.Errorf("%s: from the log: %v", label, err)
				}
				selected, err := rowtide.AppendValue(nil, rows[0][1])
				if err != nil {
					t.Errorf("%s: from the SELECT: %v", label, err)
				}
				if string(logged) != string(selected) && (cols[i].typ != "JSON" || !sameJSON(t, logged, selected)) {
					t.Errorf("%s:\n log    %T %.200s\n select %T %.200s", label, c.After[1], logged, rows[0][1], selected)
				}
				if j == len(cols[i].values) && c.After[1] != nil {
					t.Errorf("%s: %s, want null", label, logged)
				} else if j < len(cols[i].values) {
					if want, ok := cols[i].want[cols[i].values[j]]; ok && string(logged) != want {
						t.Errorf("%s: %.200s, want %s", label, logged, want)
					}
				}
			}
		}
	})
}
