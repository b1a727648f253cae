//go:build !linux

package bench

import "time"

func newSleeper() (sleep func(time.Duration), done func()) { return time.Sleep, func() {} }
