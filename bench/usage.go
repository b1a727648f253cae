package bench

import "time"

// usage is what processes have used so far.
type usage struct {
	cpu        time.Duration // user and system
	rss        int64         // bytes, now
	written    int64         // bytes handed to the block layer, or made dirty in the page cache
	disk       int64         // bytes written by the whole disk below the data, -1 unknown
	syscallsRW int64         // read and write system calls
	read       int64         // bytes read from the disk
}

// sub returns what was used since. rss stays what it is.
func (u usage) sub(since usage) usage {
	u.cpu -= since.cpu
	u.written -= since.written
	u.syscallsRW -= since.syscallsRW
	u.read -= since.read
	if u.disk >= 0 && since.disk >= 0 {
		u.disk -= since.disk
	}
	return u
}
