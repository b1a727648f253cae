// Package rpctest has what tests of servers need.
package rpctest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports of FreeAddress: below those that systems give to outgoing connections (32768 and above on Linux, 49152 elsewhere).
const (
	firstPort = 10_000
	ports     = 22_000
)

var (
	given   = map[int]bool{}
	givenMu sync.Mutex
)

// FreeAddress returns a loopback address on which nobody listens, TCP or UDP, and which it never returned before. A server that
// is stopped finds it free when it starts again. An address that the system chose (port 0) would not do: meanwhile the
// system may give its port to an outgoing connection, of any process.
func FreeAddress() string {
	givenMu.Lock()
	defer givenMu.Unlock()
	for range 10 * ports {
		port := firstPort + rand.IntN(ports)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if !given[port] && free(address) {
			given[port] = true
			return address
		}
	}
	panic("rpctest: all ports are in use")
}

func free(address string) bool {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return udp.Close() == nil
}
