package testenv

import (
	"os"
	"time"
)

// EnvOutage is how long tests of a long outage last, for example 10m.
const EnvOutage = "ROWTIDE_TEST_OUTAGE"

// Outage is how long a test of a long outage keeps its server away: one minute
// unless EnvOutage says otherwise.
func Outage() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(EnvOutage)); err == nil {
		return d
	}
	return time.Minute
}
