// Package leaders is what one node knows of who leads what: of each group that it, or a node that it has a lane with, has a replica of. It
// answers "who leads, since which term, who is in sync" from memory, for any number of those who ask, and asks nobody.
//
// # Who says what
//
// Each node speaks of its own replicas: whom they take for their leader, in which term, and, where one of them leads, which members are in
// sync. The words of this node's own replicas come from their workers (Leads, InSync, Gone); they are kept in the order of their changes
// (own.go), so what is told to another node is what has changed since a count, everything if that is 0. The words of other nodes come as
// News over their control lanes to this one (hear.go; package rpc carries them, rpc/news.go).
//
// # What is believed (read.go)
//
//   - A word counts as long as the lane that it came by is there, and the lane to the node that said it: a node that is lost leads nothing,
//     as far as this one knows. Others may still hear it, and say so.
//   - Only members of the group are believed, and only about members.
//   - The higher term is right. In one term a group has one leader at most; that a node leads is contradicted by itself alone, if it says
//     of the same term, or a later one, that it does not.
//   - That nobody leads has to be said by the members. While one that seems to be alive has not said what it knows, nothing is known.
//
// Followers say whom they follow since a leader may be lost to this node only, and since they know first that it is gone.
//
// # Bounds
//
// A word takes some 50 bytes, a group of three 250. Words are kept of groups that the metadata has, and of those after all that it
// has: this node's metadata may be a little behind. Of those a node may say 65,536; should it have more to say it is asked to begin anew, a
// little later. What the metadata had and has no more goes with the next Sweep.
package leaders
