package stockapi

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// LimitRule is one purchase limit: at most Max units per user and event, or per
// user and SKU, over the live and confirmed holds of the user. Cancelled and
// expired holds give their units back to the limit.
type LimitRule struct {
	// ID names the rule to the buyer and in the counters; changing it starts the
	// count anew.
	ID string `mapstructure:"id"`
	// Match narrows the rule; empty patterns match all.
	Match LimitMatch `mapstructure:"match"`
	// Per is [user, event] or [user, sku].
	Per []string `mapstructure:"per"`
	// Max is the largest quantity.
	Max int64 `mapstructure:"max"`
}

// LimitMatch holds patterns in the notation of [path.Match].
type LimitMatch struct {
	Event string `mapstructure:"event"`
	SKU   string `mapstructure:"sku"`
}

func (r LimitRule) perSKU() bool { return slices.Equal(r.Per, []string{"user", "sku"}) }

func (r LimitRule) validate() error {
	var errs []error
	if !validEvent(r.ID) {
		errs = append(errs, fmt.Errorf("limit %q: id must be 1 to %d letters, digits, - or _", r.ID, maxName))
	}
	if !r.perSKU() && !slices.Equal(r.Per, []string{"user", "event"}) {
		errs = append(errs, fmt.Errorf("limit %q: per must be [user, event] or [user, sku], not %v", r.ID, r.Per))
	}
	if r.Max < 1 || r.Max > maxUnits {
		errs = append(errs, fmt.Errorf("limit %q: max must be between 1 and %d, not %d", r.ID, int64(maxUnits), r.Max))
	}
	for _, p := range []string{r.Match.Event, r.Match.SKU} {
		if _, err := path.Match(p, ""); err != nil {
			errs = append(errs, fmt.Errorf("limit %q: pattern %q: %w", r.ID, p, err))
		}
	}
	return errors.Join(errs...)
}

// limitCheck is a rule applied to one request: field of the user's hash may grow
// by n if it stays at or below max.
type limitCheck struct {
	rule   string
	field  string
	n, max int64
}

// compileLimits applies the rules to a request. The order is that of the rules, so
// the first rule in the configuration is the one a buyer hears about.
func compileLimits(rules []LimitRule, event string, items []Item) []limitCheck {
	var out []limitCheck
	for _, r := range rules {
		if !matches(r.Match.Event, event) {
			continue
		}
		var sum int64
		for _, it := range items {
			if !matches(r.Match.SKU, it.SKU) {
				continue
			}
			sum += it.Qty
			if r.perSKU() {
				out = append(out, limitCheck{r.ID, r.ID + ":" + it.SKU, it.Qty, r.Max})
			}
		}
		if sum > 0 && !r.perSKU() {
			out = append(out, limitCheck{r.ID, r.ID, sum, r.Max})
		}
	}
	return out
}

// matches is path.Match with "" for everything; patterns were validated.
func matches(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	ok, _ := path.Match(pattern, name)
	return ok
}
