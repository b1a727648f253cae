package raftgroup

// SwitchOffLogData has Raft keep the data that entries came with, until the returned function is called.
func SwitchOffLogData() (restore func()) {
	off.keepGivenData = true
	return func() { off.keepGivenData = false }
}

// SwitchOff turns rules off until the returned function is called.
func SwitchOff(answerBeforeCut, respondImmediately bool) (restore func()) {
	old := off
	off = rules{answerBeforeCut: answerBeforeCut, respondImmediately: respondImmediately}
	return func() { off = old }
}
