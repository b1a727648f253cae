package client

import "github.com/quorumlog/quorumlog/rpc/kerr"

// otherRelease returns what the nodes said when the last refresh failed because none of them speaks a version of the protocol that this
// client speaks: waiting does not help, and what they say does.
func (m *metadataCache) otherRelease() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, ok := m.mu.err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, err := range all.Unwrap() {
		if kerr.CodeOf(err) != kerr.UnsupportedVersion {
			return nil
		}
	}
	return m.mu.err
}
