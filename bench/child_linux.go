package bench

import "syscall"

// childAttributes has the kernel kill a node whose parent died: a demo that is interrupted leaves no cluster behind.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
