//go:build !linux

package rpc

import "syscall"

// control does nothing: TCP_USER_TIMEOUT is Linux's. A peer that is gone is found by keepalive, pings and write deadlines.
func control(_, _ string, _ syscall.RawConn) error { return nil }
