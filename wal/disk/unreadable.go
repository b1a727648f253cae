package disk

import (
	"errors"
	"io/fs"
	"syscall"
)

// Unreadable tells whether err says that stored bytes cannot be had: the medium does not give them, or the file system knows that
// its own records of them are damaged. It is about this file, or this block of it. A process that has no more descriptors or memory, a
// closed file, or an error that nobody has met before is no word about what is stored.
func Unreadable(err error) bool {
	for _, e := range unreadable {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// unreadable: the last ones are what ext4, XFS, btrfs and ZFS say of a bad checksum.
var unreadable = append([]error{syscall.EIO, syscall.ENODATA, syscall.EBADMSG}, unreadableHere...)

// BadPath tells whether err says that a name cannot be made or opened, whatever is done about it: it is too long, or there is something
// else in its place. Others on the same disk are not affected. A missing permission is neither: a program that was run as another user
// left files to him, on all nodes alike perhaps, and a chown puts all of them right.
func BadPath(err error) bool {
	for _, e := range [...]error{
		syscall.ENAMETOOLONG, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, fs.ErrExist,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
