package rowtide_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
)

// asJSON is what encoding/json makes of a column value's counterpart.
func asJSON(v any) any {
	switch x := v.(type) {
	case time.Time:
		return x.UTC()
	case rowtide.JSON:
		return json.RawMessage(x)
	}
	return v
}

// sameMeaning compares two JSON texts by what they mean, numbers digit by digit.
func sameMeaning(t testing.TB, got, want []byte) {
	t.Helper()
	read := func(b []byte) (out any) {
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		if err := d.Decode(&out); err != nil {
			t.Fatalf("%s is not JSON: %v", b, err)
		}
		return out
	}
	if g, w := read(got), read(want); !reflect.DeepEqual(g, w) {
		t.Errorf("%s means %v, want %v", got, g, w)
	}
}

func TestAppendValue_CanonicalTypes(t *testing.T) {
	zone := time.FixedZone("CEST", 2*3600)
	for _, tt := range []struct {
		in   rowtide.Value
		want string
	}{
		{nil, `null`},
		{int8(math.MinInt8), `-128`},
		{int16(math.MinInt16), `-32768`},
		{int32(math.MinInt32), `-2147483648`},
		{int64(math.MinInt64), `-9223372036854775808`},
		{uint8(math.MaxUint8), `255`},
		{uint16(math.MaxUint16), `65535`},
		{uint32(math.MaxUint32), `4294967295`},
		{uint64(math.MaxUint64), `18446744073709551615`},
		{float32(1.1), `1.1`},
		{float32(math.MaxFloat32), `3.4028235e+38`},
		{1.1, `1.1`},
		{math.MaxFloat64, `1.7976931348623157e+308`},
		{0.0, `0`},
		{-0.5, `-0.5`},
		{"", `""`},
		{"Été ☀ 😀", `"Été ☀ 😀"`},
		{"<a href='x'>&</a>", `"<a href='x'>&</a>"`},
		{"a\"b\\c\nd\x00\x1f", `"a\"b\\c\nd\u0000\u001f"`},
		{"a\tb", `"a\tb"`},
		{"\x01", `"\u0001"`},
		{"\x00", `"\u0000"`},
		{"12345678901234567890.10", `"12345678901234567890.10"`},
		{time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), `"2026-11-21T08:00:00Z"`},
		{time.Date(2026, 11, 21, 10, 0, 0, 120_000_000, zone), `"2026-11-21T08:00:00.12Z"`},
		{time.Date(2026, 11, 21, 8, 0, 0, 1000, time.UTC), `"2026-11-21T08:00:00.000001Z"`},
		{[]byte{}, `""`},
		{[]byte("ab\x00\x00"), `"YWIAAA=="`},
		{[]byte{0xff}, `"/w=="`},
		{rowtide.JSON(`{"b": 1.0, "a": [1, "x y"]}`), `{"b":1.0,"a":[1,"x y"]}`},
		{rowtide.JSON(`null`), `null`},
	} {
		t.Run(fmt.Sprintf("%T %v", tt.in, tt.in), func(t *testing.T) {
			got, err := rowtide.AppendValue([]byte("x"), tt.in)
			if err != nil || string(got) != "x"+tt.want {
				t.Fatalf("%s, %v; want x%s", got, err, tt.want)
			}
			std, err := json.Marshal(asJSON(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if _, isFloat := tt.in.(float32); !isFloat { // encoding/json spells exponents its own way
				sameMeaning(t, got[1:], std)
			}
		})
	}
}

func TestAppendValue_Refuses(t *testing.T) {
	for _, tt := range []struct {
		in   rowtide.Value
		want string
	}{
		{math.NaN(), "no JSON form"},
		{math.Inf(1), "no JSON form"},
		{float32(math.Inf(-1)), "no JSON form"},
		{true, "type bool is not a column value"},
		{struct{}{}, "type struct {} is not a column value"},
		{json.Number("1"), "type json.Number"},
		{rowtide.JSON(`{"a":`), "render JSON column"},
		{rowtide.JSON(``), "render JSON column"},
	} {
		if _, err := rowtide.AppendValue(nil, tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%T %v: err=%v, want %q", tt.in, tt.in, err, tt.want)
		}
	}
}

func TestAppendValue_NumbersReadBackExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64().Draw(t, "float64")
		b, err := rowtide.AppendValue(nil, f)
		var got float64
		if err != nil || json.Unmarshal(b, &got) != nil || got != f {
			t.Fatalf("%s, %v: reads %v, want %v", b, err, got, f)
		}
		f32 := rapid.Float32().Draw(t, "float32")
		b, err = rowtide.AppendValue(nil, f32)
		var got32 float32
		if err != nil || json.Unmarshal(b, &got32) != nil || got32 != f32 {
			t.Fatalf("%s, %v: reads %v, want %v", b, err, got32, f32)
		}
		n := rapid.Int64().Draw(t, "int64")
		if b, err = rowtide.AppendValue(nil, n); err != nil || string(b) != fmt.Sprint(n) {
			t.Fatalf("%s, %v; want %d", b, err, n)
		}
		u := rapid.Uint64().Draw(t, "uint64")
		if b, err = rowtide.AppendValue(nil, u); err != nil || string(b) != fmt.Sprint(u) {
			t.Fatalf("%s, %v; want %d", b, err, u)
		}
	})
}

func TestAppendText_IsBareTextForKeys(t *testing.T) {
	for _, tt := range []struct {
		in   rowtide.Value
		want string
	}{
		{int64(42), "42"},
		{uint64(1<<64 - 1), "18446744073709551615"},
		{`a"b`, `a"b`},
		{[]byte("ab\x00\x00"), "YWIAAA=="},
		{time.Date(2026, 11, 21, 8, 0, 0, 500_000_000, time.UTC), "2026-11-21T08:00:00.5Z"},
		{1.5, "1.5"},
		{nil, "null"},
	} {
		if got, err := rowtide.AppendText([]byte("k:"), tt.in); err != nil || string(got) != "k:"+tt.want {
			t.Errorf("%T %v: %s, %v; want k:%s", tt.in, tt.in, got, err, tt.want)
		}
	}
	if _, err := rowtide.AppendText(nil, struct{}{}); err == nil {
		t.Error("a type that is no column value has a text")
	}
}

func FuzzAppendJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", `a"b\c`, "\x00\x1f\x7f", "\u2028\u2029", "<&>", "\xff\xfe", "é\xc3", "😀", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := rowtide.AppendJSONString([]byte("x"), s)
		if got[0] != 'x' || !json.Valid(got[1:]) {
			t.Fatalf("%q is not a JSON string", got[1:])
		}
		std, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		sameMeaning(t, got[1:], std)
	})
}

func TestOp_ZeroIsNoOperation(t *testing.T) {
	for op, want := range map[rowtide.Op]string{0: "op(0)", rowtide.OpInsert: "insert", rowtide.OpUpdate: "update", rowtide.OpDelete: "delete", rowtide.OpRead: "read", 9: "op(9)"} {
		if got := op.String(); got != want {
			t.Errorf("%d: %q, want %q", uint8(op), got, want)
		}
	}
}

func TestTable_ColumnByName(t *testing.T) {
	tab := rowtide.Table{Schema: "shop", Name: "event", Columns: []string{"id", "title"}}
	if got, want := tab.String(), "shop.event"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for name, want := range map[string]int{"id": 0, "title": 1, "Title": -1, "": -1} {
		if got := tab.Column(name); got != want {
			t.Errorf("column %q: %d, want %d", name, got, want)
		}
	}
}
