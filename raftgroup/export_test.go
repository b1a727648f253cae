package raftgroup

// SwitchOff turns rules off until the returned function is called.
func SwitchOff(answerBeforeCut, respondImmediately bool) (restore func()) {
	old := off
	off = rules{answerBeforeCut: answerBeforeCut, respondImmediately: respondImmediately}
	return func() { off = old }
}
