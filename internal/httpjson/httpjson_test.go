package httpjson_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rowtide/rowtide/internal/httpjson"
)

func TestWrite_SaysTypeAndLength(t *testing.T) {
	for indent, want := range map[string]string{"": "{\"a\":\"\\u003c\"}\n", " ": "{\n \"a\": \"\\u003c\"\n}\n"} {
		w := httptest.NewRecorder()
		httpjson.Write(w, http.StatusTeapot, map[string]string{"a": "<"}, indent)
		if w.Code != http.StatusTeapot || w.Body.String() != want || w.Result().ContentLength != int64(len(want)) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("indent %q: %d %v %q, want %q", indent, w.Code, w.Header(), w.Body, want)
		}
	}
}
