// Package id names the things that quorumlog counts. Every number that crosses a package border has its own type, so that
// an offset cannot be passed where an index is meant: mixing the two is the oldest bug of logs that live inside Raft
// (control entries take an index but no offset).
//
// It is a leaf: it imports nothing of this module and every package may import it.
package id
