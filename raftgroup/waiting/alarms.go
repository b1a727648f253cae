package waiting

import "time"

// Alarms is a binary heap of moments that somebody waits for, the earliest first.
type Alarms[T any] struct{ heap []Alarm[T] }

// Alarm is a moment, and who waits for it.
type Alarm[T any] struct {
	At  time.Time
	Who T
}

// Next returns the earliest moment; zero: there is none.
func (a *Alarms[T]) Next() time.Time {
	if len(a.heap) == 0 {
		return time.Time{}
	}
	return a.heap[0].At
}

// Add adds an alarm.
func (a *Alarms[T]) Add(x Alarm[T]) {
	a.heap = append(a.heap, x)
	for i := len(a.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !a.heap[i].At.Before(a.heap[up].At) {
			break
		}
		a.heap[i], a.heap[up] = a.heap[up], a.heap[i]
		i = up
	}
}

// Pop removes and returns the earliest alarm. There must be one.
func (a *Alarms[T]) Pop() Alarm[T] {
	first := a.heap[0]
	n := len(a.heap) - 1
	a.heap[0], a.heap[n] = a.heap[n], Alarm[T]{}
	a.heap = a.heap[:n]
	for i := 0; ; {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < n && a.heap[child].At.Before(a.heap[least].At) {
				least = child
			}
		}
		if least == i {
			return first
		}
		a.heap[i], a.heap[least] = a.heap[least], a.heap[i]
		i = least
	}
}
