// Package floors is how tests look at the structure of a package, from its source: which file knows which other one, and what can be reached
// from outside. It is for tests alone, of any package; the arrows between packages are checked beside it, in cmd/quorumlog.
package floors
