// Package budget shares a bound in bytes, which is a node's, among its connections: those that take much leave room for those that come.
package budget
