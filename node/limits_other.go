//go:build !unix

package node

func openFiles() uint64 { return defaultOpenFiles }
