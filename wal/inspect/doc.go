// Package inspect looks at the files of a data directory that no node has open: what is in them, and whether it is what was written. It
// takes what the files should hold from wal.ReadImage, which is the start of a store without its writes, and never writes a byte itself.
package inspect
