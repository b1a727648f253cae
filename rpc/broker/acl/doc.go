// Package acl is Kafka's model of permissions: its words, a set of bindings that finds those for a resource without a look at the others, and
// the decision whether somebody may do something. Pure, and a leaf: whoever keeps bindings, asks for them or obeys them speaks in its terms.
package acl
