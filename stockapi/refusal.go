package stockapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// codes maps the scripts' first reply word; SHORT is split by holdRefusal.
var codes = map[string]Code{
	"FP": CodeKeyReused, "NOCELL": CodeUnknownEvent, "EPOCH": CodeEpoch, "FROZEN": CodeFrozen,
	"NOT_YET": CodeNotYet, "ENDED": CodeEnded, "BACKPRESSURE": CodeBackpressure, "LIMIT": CodeLimit,
	"NO_SKU": CodeUnknownSKU, "SHORT": CodeSoldOut, "NONE": CodeHoldNotFound, "CONFIRMED": CodeAlreadyConfirmed,
	"CANCELLED": CodeHoldCancelled, "EXPIRED": CodeHoldExpired, "STALE": CodeStale, "BUSY": CodeBusy,
	"SOLD": CodeRowsDiffer, "MISSING": CodeRowsDiffer,
}

// refusal makes an error of a reply that is neither OK nor DUP.
func refusal(reply []string) error {
	code, ok := codes[reply[0]]
	if !ok {
		return fmt.Errorf("script replied %q", reply)
	}
	return &RefusalError{Code: code, Detail: strings.Join(reply[1:], " ")}
}

// holdRefusal adds what the buyer wants to know.
func holdRefusal(reply []string, req HoldRequest, checks []limitCheck) error {
	err := refusal(reply)
	r, ok := err.(*RefusalError) //nolint:errorlint // made one line above, not wrapped
	if !ok {
		return err
	}
	n := func(i int) int64 {
		if i >= len(reply) {
			return 0
		}
		v, _ := strconv.ParseInt(reply[i], 10, 64)
		return v
	}
	switch r.Code {
	case CodeNotYet, CodeEnded:
		r.At = time.UnixMilli(n(1)).UTC()
	case CodeUnknownSKU:
		r.SKU = reply[1]
	case CodeLimit:
		if i := int(n(1)) - 1; i >= 0 && i < len(checks) {
			r.Rule, r.Used, r.Max = checks[i].rule, n(2), checks[i].max
		}
	case CodeSoldOut:
		r.SKU, r.Left = reply[1], n(2)
		// Holds that are still open may come back: not "sold out" for good.
		for _, it := range req.Items {
			if it.SKU == r.SKU && n(2)+n(3) >= it.Qty {
				r.Code = CodeAllHeld
			}
		}
	default: // the code says it all
	}
	return r
}

func packLimits(checks []limitCheck) string {
	var b strings.Builder
	for i, c := range checks {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(c.field + "," + itoa(c.n) + "," + itoa(c.max))
	}
	return b.String()
}
