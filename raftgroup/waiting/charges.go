package waiting

import "github.com/quorumlog/quorumlog/wal/id"

// Charges are the bytes of entries that are proposed, until these are applied, in their order.
type Charges struct{ list []charge }

type charge struct {
	last  id.Index
	bytes int64
}

// Add charges bytes for entries up to last, which follow those charged before.
func (c *Charges) Add(last id.Index, bytes int64) { c.list = append(c.list, charge{last, bytes}) }

// Last returns the last entry that was charged for. There must be one.
func (c *Charges) Last() id.Index { return c.list[len(c.list)-1].last }

// Cut takes back the charges that reach to from or above, and returns their bytes.
func (c *Charges) Cut(from id.Index) (bytes int64) {
	n := len(c.list)
	for ; n > 0 && c.list[n-1].last >= from; n-- {
		bytes += c.list[n-1].bytes
	}
	c.list = c.list[:n]
	return bytes
}

// Settle takes back the charges for entries up to applied, and returns their bytes.
func (c *Charges) Settle(applied id.Index) (bytes int64) {
	n := 0
	for ; n < len(c.list) && c.list[n].last <= applied; n++ {
		bytes += c.list[n].bytes
	}
	if n > 0 {
		c.list = c.list[:copy(c.list, c.list[n:])]
	}
	return bytes
}
