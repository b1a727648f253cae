// Package clienttest is a cluster in memory for tests of clients: real sockets and the real protocol of package rpc, and behind
// them partitions that follow the rules of idempotence but know no Raft and no disk. Faults are injected by a hook.
package clienttest
