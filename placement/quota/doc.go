// Package quota is the rules of client quotas, with Kafka's precedence: which of them holds for a client, and together with whom it is
// counted. Pure: what a client has used, and how long it has to wait, is the business of whoever serves it.
package quota
