package disk

var unreadableHere []error
