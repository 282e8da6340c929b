// Package publisher takes entries out of the daemon: first as set-if-newer
// overwrites to Redis, then as invalidations to Kafka. It never deletes a key and
// needs no permission to.
package publisher
