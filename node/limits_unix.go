//go:build unix

package node

import "syscall"

// openFiles returns how many files and sockets the process may have open. The Go runtime has raised the soft limit to the hard one.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return defaultOpenFiles
	}
	return uint64(limit.Cur)
}
