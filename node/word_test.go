package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
)

// TestMajoritySilence: a leader knows as much as the majority that it heard from last.
func TestMajoritySilence(t *testing.T) {
	member := func(silent time.Duration) raftgroup.MemberStatus { return raftgroup.MemberStatus{LastAck: silent} }
	learner := raftgroup.MemberStatus{Learner: true, LastAck: 0}
	for _, tt := range []struct {
		name    string
		members []raftgroup.MemberStatus
		want    time.Duration
		ok      bool
	}{
		{"nobody", nil, 0, false},
		{"alone", []raftgroup.MemberStatus{member(0)}, 0, true},
		{"one of two others is gone", []raftgroup.MemberStatus{member(0), member(time.Minute), member(2)}, 2, true},
		{"both are gone", []raftgroup.MemberStatus{member(0), member(time.Minute), member(time.Second), learner}, time.Second, true},
		{"both were never heard from", []raftgroup.MemberStatus{member(0), member(-1), member(-1), learner, learner}, 0, false},
		{"two voters", []raftgroup.MemberStatus{member(0), member(7)}, 7, true},
	} {
		if got, ok := majoritySilence(tt.members); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestAgeOfAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := word{began: time.Now()}
		if w.age() >= 0 {
			t.Errorf("%v before any word", w.age())
		}
		time.Sleep(time.Second) // of the bubble's clock
		w.heard(time.Now())
		w.heard(time.Now().Add(-time.Minute)) // from before the start, and older
		time.Sleep(3 * time.Second)
		if w.age() != 3*time.Second {
			t.Errorf("%v after three seconds", w.age())
		}
	})
}
