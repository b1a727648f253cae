package rpc

import (
	"encoding/binary"
	"math"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// News are what a node tells another one, on its control lane to it, of who leads the groups that it has replicas of: everything once the
// lane is open, and from then on what changes.
//
//	0   u64  From
//	8   u64  To
//	16  u8   flags: 1 Last
//	17  …    words, one behind the other:
//	         uvarint group | u8 flags: 1 Gone, 2 Led here
//	         unless it is gone: uvarint term | uvarint leader + 1, 0: none
//	         if it is led here: uvarint Lagging | uvarint count, so many uvarints: the nodes in sync
//
// A word has some ten bytes, one of a leader 15.
type News struct {
	// From and To are the counts of the teller's changes before and after these news. Whoever has heard up to another count than From has
	// missed something. From 0: the teller begins anew, and what it said before counts until it has said all.
	From, To uint64
	Last     bool // there is no more, for the moment
	Words    []Word
}

// Word is what a node says of one group. Whoever gets it owns what it holds.
type Word struct {
	Group  id.Group
	Gone   bool // the node has no working replica of it any more: it says nothing further
	Leader id.Node
	Term   id.Term
	// Of the leader itself:
	Led     bool
	InSync  []id.Node
	Lagging int // members that are not in sync, or do not answer
}

// Teller is what a node has to tell. Its method is called by the goroutines of lanes.
type Teller interface {
	// Since returns what has changed after a count, words of about NewsBytes at most, appended to words. A count that it has nothing of
	// any more is answered with everything, from 0 on. What the words hold is not changed afterwards.
	Since(count uint64, words []Word) News
}

// NewsBytes is how much one message of news may have. Heartbeats wait for as much.
const NewsBytes = 32 << 10

const (
	newsHead   = 17
	newsLast   = 1
	wordGone   = 1
	wordLed    = 2
	maxInSync  = 1 << 10 // nodes that a word names at most
	maxLagging = math.MaxUint16
)

// Size returns how large a word may be on the wire.
func (w *Word) Size() int { return 32 + 5*len(w.InSync) }

// appendNews encodes news.
func appendNews(dst []byte, n News) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, n.From)
	dst = binary.LittleEndian.AppendUint64(dst, n.To)
	dst = append(dst, flag(n.Last, newsLast))
	for i := range n.Words {
		w := &n.Words[i]
		dst = binary.AppendUvarint(dst, uint64(w.Group))
		dst = append(dst, flag(w.Gone, wordGone)|flag(w.Led, wordLed))
		if w.Gone {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(w.Term))
		dst = binary.AppendUvarint(dst, uint64(w.Leader+1))
		if !w.Led {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(min(w.Lagging, maxLagging)))
		inSync := w.InSync[:min(len(w.InSync), maxInSync)]
		dst = binary.AppendUvarint(dst, uint64(len(inSync)))
		for _, node := range inSync {
			dst = binary.AppendUvarint(dst, uint64(node))
		}
	}
	return dst
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// decodeNews returns news; their words are appended to words.
func decodeNews(b []byte, words []Word) (News, error) {
	c := cursor{b: b}
	n := News{From: c.u64(), To: c.u64()}
	flags := c.u8()
	n.Last = flags&newsLast != 0
	for !c.bad && len(c.b) > 0 {
		w, ok := c.word()
		if !ok {
			c.bad = true
		}
		words = append(words, w)
	}
	n.Words = words
	if c.bad || flags&^newsLast != 0 || n.To < n.From || n.To == 0 {
		return News{}, kerr.Errorf(kerr.CorruptMessage, "news of %d bytes with a good CRC do not decode", len(b))
	}
	return n, nil
}

func (c *cursor) word() (w Word, ok bool) {
	w.Group = id.Group(c.uvarint())
	flags := c.u8()
	w.Gone, w.Led = flags&wordGone != 0, flags&wordLed != 0
	if w.Leader = id.NoNode; w.Gone {
		return w, flags == wordGone
	}
	w.Term = id.Term(c.uvarint())
	leader := c.uvarint()
	if leader > math.MaxInt32 || flags&^wordLed != 0 {
		return w, false
	}
	w.Leader = id.Node(leader) - 1
	if !w.Led {
		return w, true
	}
	lagging, count := c.uvarint(), c.uvarint()
	if w.Leader == id.NoNode || lagging > maxLagging || count > maxInSync || count > uint64(len(c.b)) {
		return w, false
	}
	w.Lagging = int(lagging)
	for range count {
		node := c.uvarint()
		if node > math.MaxInt32 {
			return w, false
		}
		if w.InSync == nil {
			w.InSync = make([]id.Node, 0, count)
		}
		w.InSync = append(w.InSync, id.Node(node))
	}
	return w, true
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

// clearWords gives up what words hold. Their memory is used again, unless it is much.
func clearWords(words []Word) []Word {
	clear(words)
	if cap(words) > 4<<10 {
		return nil
	}
	return words[:0]
}
