package disk

import "syscall"

var unreadableHere = []error{syscall.EUCLEAN, syscall.EREMOTEIO}
