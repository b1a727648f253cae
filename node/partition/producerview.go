package partition

import (
	"sync/atomic"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The section of the producers (snapshot.go), and their commands (expiry.go).
const (
	sectionProducers envelope.Kind = 1
	producersVersion uint16        = 1

	commandForget command.Kind = 1 // body: the index through which, as a uvarint
	forgetVersion uint8        = 1
)

// producerView is the producers as one of a partition's views: idempotence, decided before a batch enters the log.
type producerView struct {
	*Producers
	oldest atomic.Uint64 // Producers.Oldest as of the last applied entry, for Expire
}

func (v *producerView) section() (kind envelope.Kind, version uint16) {
	return sectionProducers, producersVersion
}

func (v *producerView) encode() []byte {
	if v.Len() == 0 {
		return nil
	}
	return v.Snapshot(nil)
}

func (v *producerView) restore(version uint16, body []byte) error {
	if version != producersVersion {
		return unknownSection(sectionProducers, version)
	}
	err := v.Restore(body)
	v.publish()
	return err
}

func (v *producerView) clear() {
	v.Producers.clear()
	v.publish()
}

func (v *producerView) concerned() concern { return ofProducers }

func (v *producerView) admit(b batch.Batch) (raftgroup.Admission, bool) {
	verdict, err := v.Check(b)
	switch {
	case err != nil:
		return raftgroup.Refuse(err), false
	case verdict.Duplicate:
		return raftgroup.Duplicate(verdict.Index, verdict.Term, verdict.BaseOffset), false
	}
	return raftgroup.Admission{}, true
}

func (v *producerView) append(index id.Index, term id.Term, b batch.Batch) { v.Append(index, term, b) }

func (v *producerView) truncate(from id.Index) { v.Truncate(from) }

func (v *producerView) apply(index id.Index, term id.Term, b batch.Batch) {
	v.Apply(index, term, b)
	v.publish()
}

func (v *producerView) commands() []command.Kind { return []command.Kind{commandForget} }

func (v *producerView) command(_ id.Index, c command.Command) (any, error) {
	if c.Version != forgetVersion {
		return nil, unknownCommand(c)
	}
	through, err := parseForget(c.Body)
	if err != nil {
		return nil, err
	}
	v.Forget(through)
	v.publish()
	return nil, nil
}

func (v *producerView) publish() {
	if oldest := uint64(v.Oldest()); oldest != v.oldest.Load() {
		v.oldest.Store(oldest)
	}
}
