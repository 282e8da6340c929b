// Package hints is what the daemon and the nodes agree on about hints: news of
// changes over Redis, ahead of Kafka.
package hints

import (
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Channel is where the hints of a prefix in rdb's database are told: Redis's channels
// know of no databases.
func Channel(rdb redis.UniversalClient, prefix string) string {
	channel := prefix + ":~hints"
	if c, ok := rdb.(*redis.Client); ok && c.Options().DB != 0 {
		channel += ":" + strconv.Itoa(c.Options().DB)
	}
	return channel
}
