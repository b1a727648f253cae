// Package kerr is Kafka's error codes as Go errors: what a refusal says, whatever protocol carries it. The layers below have errors of their
// own; node/serving gives them their codes, in one place.
package kerr
