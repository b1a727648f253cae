// Package bench measures and verifies: it starts clusters of real processes, loads them, and compares what was acknowledged
// with what can be read back. A figure without that comparison is not worth printing.
//
// A [Workload] says what is sent and read. A [Target] is a system that can be measured; it becomes a [System] when it is started.
// A [Run] is one turn of one target: start, warm-up, timed part, reading back, end. [Compare] lets targets take turns. The
// targets beside quorumlog itself are in the packages below: limit (what the machine can do at best), kafka and nats.
//
// Everything is measured on one clock, in the process that makes the load:
//
//	sender ──Send──▶ Producer ─▶ servers ─▶ Consumer ──Poll──▶ follower (end to end)
//	   │ number, due        │ Outcome                            readBack (afterwards, all of it)
//	   ▼                    ▼                                       ▼
//	 lane: sent ──────── acked ────────────────────────────────── read
//
// [Ledger] is for the demo and the crash tests, whose records are chosen by somebody else.
package bench
