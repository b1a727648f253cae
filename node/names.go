package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/quorumlog/quorumlog/node/internal/simulated"
)

// resolved makes an address to listen on one with an IP. A name that does not resolve is waited for: in containers, DNS comes late.
func (n *Node) resolved(ctx context.Context, flag, address string) (string, error) {
	host, port, err := splitAddress(address)
	if err != nil {
		return "", fmt.Errorf("%s %w", flag, err)
	}
	if host == "" {
		return address, nil
	}
	ip, err := n.awaitName(ctx, flag, host)
	return netip.AddrPortFrom(ip, port).String(), err
}

// awaitName returns the address of a host, an IPv4 one if it has one, as net.Listen would take it.
func (n *Node) awaitName(ctx context.Context, flag, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	look, ok := simulated.ResolverOf(ctx)
	if !ok {
		look = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	said := seldom{logger: n.logger}
	for {
		limited, cancel := context.WithTimeout(ctx, lookupTimeout)
		ips, err := look(limited, host)
		cancel()
		for _, ip := range ips {
			if ip.Unmap().Is4() {
				return ip.Unmap(), nil
			}
		}
		switch {
		case len(ips) > 0:
			return ips[0], nil
		case ctx.Err() != nil:
			return netip.Addr{}, fmt.Errorf("gave up waiting for the name %s (%s) to resolve: %w", host, flag, errors.Join(ctx.Err(), err))
		}
		said.warn("waiting for a name to resolve", "name", host, "flag", flag, "reason", fmt.Sprint(err))
		if !sleep(ctx, lookupInterval) {
			continue // the next look says that it is over
		}
	}
}

// listenError says why an address cannot be listened on, and what to do if somebody else does.
func listenError(what, flag, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s address %s is in use by another process: stop it, or choose another port with %s", what, address, flag)
	}
	return fmt.Errorf("cannot listen on the %s address %s: %w", what, address, err)
}
