package aggregator

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/rowtide/rowtide"
)

// encode gives a JSON document the module's form.
func (m *Module) encode(doc []byte) ([]byte, error) {
	if m.cfg.Codec == CodecMsgpack {
		return toMsgpack(doc)
	}
	return doc, nil
}

// toMsgpack writes the same document in MessagePack: the same fields in the same
// order, whole numbers as integers.
func toMsgpack(doc []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	enc.UseCompactInts(true)
	if err := transcode(dec, enc, &buf); err != nil {
		return nil, fmt.Errorf("write msgpack: %w", err)
	}
	return buf.Bytes(), nil
}

func transcode(dec *json.Decoder, enc *msgpack.Encoder, buf *bytes.Buffer) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch t := tok.(type) {
	case json.Delim:
		return container(t, dec, enc, buf)
	case json.Number:
		if n, err := t.Int64(); err == nil {
			return enc.EncodeInt(n)
		}
		var u uint64
		if err := json.Unmarshal([]byte(t), &u); err == nil {
			return enc.EncodeUint(u)
		}
		f, err := t.Float64()
		if err != nil {
			return err
		}
		return enc.EncodeFloat64(f)
	}
	return enc.Encode(tok)
}

// container writes a map or a list. Its length comes before its members and is
// known only after them, so the members are written aside.
func container(open json.Delim, dec *json.Decoder, enc *msgpack.Encoder, buf *bytes.Buffer) error {
	var members bytes.Buffer
	inner := msgpack.NewEncoder(&members)
	inner.UseCompactInts(true)
	n := 0
	for ; dec.More(); n++ {
		if open == '{' {
			if err := transcode(dec, inner, &members); err != nil { // the name
				return err
			}
		}
		if err := transcode(dec, inner, &members); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return err
	}
	header := enc.EncodeMapLen
	if open == '[' {
		header = enc.EncodeArrayLen
	}
	if err := header(n); err != nil {
		return err
	}
	_, err := buf.Write(members.Bytes())
	return err
}

// appendRow appends the payload of a from module's row.
func (p *plan) appendRow(dst []byte, row []rowtide.Value) ([]byte, error) {
	if p.mod.cfg.Codec == CodecRaw {
		if b, ok := row[p.value[0]].([]byte); ok {
			return append(dst, b...), nil
		}
		return rowtide.AppendText(dst, row[p.value[0]])
	}
	start := len(dst)
	dst, err := appendObject(dst, p.names, row, p.value)
	if err != nil {
		return dst, err
	}
	for i := range p.fields {
		f := &p.fields[i]
		v, err := f.expr.eval(p.env, row, f.cols)
		if err == nil {
			v, err = result(v)
		}
		if err != nil {
			return dst, fmt.Errorf("field %s: %w", f.name, err)
		}
		dst = dst[:len(dst)-1] // the closing brace
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = append(dst, f.name...)
		if dst, err = rowtide.AppendValue(dst, v); err != nil {
			return dst, fmt.Errorf("field %s%w", f.name, err)
		}
		dst = append(dst, '}')
	}
	if p.mod.cfg.Codec == CodecJSON {
		return dst, nil
	}
	doc, err := p.mod.encode(dst[start:])
	return append(dst[:start], doc...), err
}

// selected reports whether the row is there for the module.
func (p *plan) selected(row []rowtide.Value) (bool, error) {
	if p.where == nil {
		return true, nil
	}
	v, err := p.where.eval(p.env, row, p.whereCols)
	if err != nil {
		return false, err
	}
	switch x := v.(type) {
	case bool:
		return x, nil
	case nil:
		return false, nil
	}
	return false, fmt.Errorf("where %q gives a %T, want true or false", p.where.text, v)
}
