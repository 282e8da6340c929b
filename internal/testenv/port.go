package testenv

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken below Linux's default range for outgoing connections (32768
// and up): a port from inside that range could be taken as somebody's source
// port while its server is down between Kill and Restart.
const (
	firstPort = 15000
	lastPort  = 32000
	// portTries is far more than needed as long as a few ports in the range
	// are free.
	portTries = 200
)

// freePort finds a port of 127.0.0.1 on which nothing listens. Another process
// may still take it first; launch then tries again.
func freePort(ctx context.Context) (int, error) {
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if portFree(ctx, loopback(port)) == nil {
			return port, nil
		}
	}
	return 0, errors.New("find a free port on 127.0.0.1: none found")
}

// portFree returns nil when a server could listen on addr now.
func portFree(ctx context.Context, addr string) error {
	var cfg net.ListenConfig
	l, err := cfg.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
