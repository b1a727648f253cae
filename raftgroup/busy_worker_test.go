package raftgroup

import (
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// nothing is a store and a transport for hosts without groups.
type nothing struct{}

func (nothing) Submit([]*wal.Append)                          {}
func (nothing) SetCutTaker(func(*wal.Log))                    {}
func (nothing) SetRoundDone(func(wal.Pace))                   {}
func (nothing) Send(id.Node, id.Group, *raftpb.Message, Loan) {}
func (nothing) Pressure() wal.Pressure                        { return wal.PressureNone }
func (nothing) Stalled() time.Duration                        { return 0 }
func (nothing) Flush()                                        {}

// TestBusyWorkerTicksAndEnds gives a worker the next thing to do during each of its turns, so that there is always another one: it must
// look at its ticker all the same, and at the end of the host.
func TestBusyWorkerTicksAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tick, seconds = 5 * time.Millisecond, 2
		more := make(chan struct{}, 1)
		posted := make(chan struct{})
		h, err := New(Options{Node: 1, Store: nothing{}, Transport: nothing{}, Workers: 1, TickInterval: tick, TurnDone: func() {
			select {
			case more <- struct{}{}:
				<-posted // while the turn is under way
			default:
			}
			time.Sleep(200 * time.Microsecond) // of the bubble's time: what a turn costs
		}})
		if err != nil {
			t.Fatal(err)
		}
		w, ended := h.workers[0], make(chan struct{})
		go func() {
			defer close(ended)
			for range more {
				h.NodeUp(9)
				posted <- struct{}{}
			}
		}()
		h.NodeUp(9)
		time.Sleep(seconds * time.Second)
		ticks := make(chan int, 1)
		w.post(event{kind: evCall, call: func() { ticks <- w.ticks }})
		if n, want := <-ticks, int(seconds*time.Second/tick); n < want/2 {
			t.Errorf("%d ticks of %d", n, want)
		}
		begin := time.Now()
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 10*time.Millisecond {
			t.Errorf("the host took %v to close", took)
		}
		close(more)
		<-ended
	})
}
