// Package httpjson answers HTTP requests with JSON.
package httpjson

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// Write answers with doc, in lines with that indent unless it is empty. It panics
// when doc has no JSON form.
func Write(w http.ResponseWriter, code int, doc any, indent string) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	if err := enc.Encode(doc); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the reader has gone away
}
