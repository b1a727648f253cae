// Package push is the bound for reading what is in memory: three processes that hold a backlog, and push all of it over drpc to
// one consumer. There is no log, no offset, no credit, no checksum; what it reaches is what quorumlog's fetches can be compared
// with, since they go over the same transport.
//
//	Send ─▶ batches of 256 KiB ──store──▶ server: keeps each message as it came
//	                                         │ push: RawWrite of what it keeps, nothing is copied before drpc
//	Poll ◀── visits inside drpc's callback ◀─┘ one stream per server
package push
