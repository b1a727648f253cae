package raftgroup

// rules switches rules off in tests that show what each is for.
type rules struct {
	answerBeforeCut    bool // commit index and answers before the cut at the first new entry
	respondImmediately bool // responses of an append without entries do not wait for earlier appends
	keepGivenData      bool // Raft's entries go on referring to what they came with
}

var off rules
