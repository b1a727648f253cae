package membership

import (
	"context"
	"net"
	"net/netip"
)

// SeedState is what the gossip knows of the Seeds.
type SeedState struct {
	Others int      // seeds that are not this node itself
	Silent []string // of them: those behind which none of the members is
}

// Seeds tells which of the seeds are these members. A name may stand for several hosts, and for several addresses of one, of which one
// family is listened on: it is silent unless all its addresses of one family are members, or this node.
func (m *Membership) Seeds(ctx context.Context, members []Member) SeedState {
	known := make(map[string]bool, len(members))
	for _, member := range members {
		known[member.GossipAddress] = true
	}
	var state SeedState
	for _, seed := range m.options.Seeds {
		addresses := m.resolve(ctx, seed)
		own, answered := false, false
		for _, ipv4 := range []bool{true, false} {
			some, all, self := false, true, true
			for _, a := range addresses {
				ap, err := netip.ParseAddrPort(a)
				if err != nil || ap.Addr().Is4() != ipv4 {
					continue
				}
				mine := m.isSelf(ap)
				some, self = true, self && mine
				all = all && (mine || known[a])
			}
			own, answered = own || some && self, answered || some && all
		}
		if own {
			continue
		}
		state.Others++
		if !answered {
			state.Silent = append(state.Silent, seed)
		}
	}
	return state
}

// isSelf tells whether an address is this node's: the one that it advertises, or, while it listens on all, its port on any address of
// this host.
func (m *Membership) isSelf(at netip.AddrPort) bool {
	if at == m.transport.advertised {
		return true
	}
	bound := canonical(m.transport.tcp.Addr().(*net.TCPAddr).AddrPort())
	if at.Port() != bound.Port() || !bound.Addr().IsUnspecified() {
		return false
	}
	if at.Addr().IsLoopback() {
		return true
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, l := range local {
		if prefix, err := netip.ParsePrefix(l.String()); err == nil && prefix.Addr().Unmap() == at.Addr() {
			return true
		}
	}
	return false
}
