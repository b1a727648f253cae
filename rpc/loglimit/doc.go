// Package loglimit keeps what strangers do from filling the log: of each kind of line a few pass in a while, the rest are counted.
package loglimit
