package localsync

import (
	"time"

	"github.com/rowtide/rowtide"
)

// Observers is an observer that tells all of several, in order.
func Observers(all ...Observer) Observer { return observers(all) }

type observers []Observer

func (all observers) Opened(c *Cache) {
	for _, o := range all {
		o.Opened(c)
	}
}

func (all observers) Applied(inv rowtide.Invalidation, batch *rowtide.Batch) {
	for _, o := range all {
		o.Applied(inv, batch)
	}
}

func (all observers) Hinted(inv rowtide.Invalidation) {
	for _, o := range all {
		o.Hinted(inv)
	}
}

func (all observers) Suspect(partition int32, cause error) {
	for _, o := range all {
		o.Suspect(partition, cause)
	}
}

func (all observers) Loaded(module string, keys int, took time.Duration, err error) {
	for _, o := range all {
		o.Loaded(module, keys, took, err)
	}
}

func (all observers) Refused(module string, reason Refusal) {
	for _, o := range all {
		o.Refused(module, reason)
	}
}

func (all observers) Controlled(mc rowtide.ModuleControl) {
	for _, o := range all {
		o.Controlled(mc)
	}
}
