package wal

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// TestTailIsTheImageOfTheFile appends, truncates and evicts at random beside a plain byte slice. Pieces that were handed out
// keep their bytes whatever happens to the tail, and no chunk is left when all is released.
func TestTailIsTheImageOfTheFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m memory
		defer m.close()
		m.largest.Store(rapid.SampledFrom([]int64{smallestShare, largestChunk}).Draw(t, "largest"))
		var tl tail
		var want []byte
		type batchAt struct{ pos, n int }
		var batches []batchAt
		type held struct {
			p    piece
			want []byte
		}
		var pieces []held
		low, fill := 0, byte(0) // below low the tail may hold nothing
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0, 1:
				if len(batches) == 0 {
					break
				}
				i := rapid.IntRange(0, len(batches)-1).Draw(t, "truncate")
				if p := batches[i].pos; disk.RoundDown(int64(p)) >= int64(low) {
					if _, ok := tl.truncate(&m, int64(p)); !ok {
						t.Fatalf("the tail cannot be cut at %d", p)
					}
					want, batches = want[:p:p], batches[:i]
				}
			case 2:
				limit := rapid.IntRange(low, len(want)).Draw(t, "evict")
				for tl.evict(disk.RoundDown(int64(limit))) > 0 || tl.shrink(&m, disk.RoundDown(int64(limit))) > 0 {
					low = int(disk.RoundDown(int64(limit)))
				}
			default:
				fill++
				n := rapid.SampledFrom([]int{61, 100, 1000, 4096, 5000, 70000, 300000}).Draw(t, "n")
				data := bytes.Repeat([]byte{fill}, n)
				p := tl.append(&m, int64(len(want)), data)
				p.c.retain()
				pieces = append(pieces, held{p, data})
				batches = append(batches, batchAt{len(want), n})
				want = append(want, data...)
			}
			for _, b := range batches {
				if p, ok := tl.get(int64(b.pos), b.n); ok && !bytes.Equal(p.bytes(), want[b.pos:b.pos+b.n]) {
					t.Fatalf("the batch at %d is other bytes", b.pos)
				} else if !ok && b.pos >= low {
					t.Fatalf("the batch at %d is missing", b.pos)
				}
			}
			start := tl.start(int64(len(want)))
			image, ok := tl.pieces(nil, start, int64(len(want)))
			var got []byte
			for _, p := range image {
				got = append(got, p.bytes()...)
			}
			release(image, 0)
			if !ok || int(start) > low && int(start) != len(want) && low != 0 && int(start) > int(disk.RoundUp(int64(low))) || !bytes.Equal(got, want[start:]) {
				t.Fatalf("the image from %d is wrong (%v, %d of %d bytes)", start, ok, len(got), len(want))
			}
		}
		for _, h := range pieces {
			if !bytes.Equal(h.p.bytes(), h.want) {
				t.Fatal("bytes were overwritten that somebody refers to")
			}
			h.p.c.release()
		}
		tl.clear()
		if n := m.used.Load(); n != 0 {
			t.Fatalf("%d bytes are never released", n)
		}
	})
}

func TestMemoryMergesWhatIsFreed(t *testing.T) {
	var m memory
	defer m.close()
	var chunks []*chunk
	for i := range 20000 {
		chunks = append(chunks, m.alloc(1+i%5*4096))
	}
	arenas := len(m.arenas)
	for _, c := range chunks {
		c.release()
	}
	for range arenas * arenaBytes >> maxOrder { // whole again
		chunks = append(chunks, m.alloc(1<<maxOrder))
	}
	if len(m.arenas) != arenas {
		t.Errorf("%d arenas have become %d", arenas, len(m.arenas))
	}
	for _, c := range chunks[20000:] {
		c.release()
	}
	big := m.alloc(1<<maxOrder + 1)
	if disk.CheckAligned(big.buf, 0) != nil || len(big.buf) < 1<<maxOrder+1 {
		t.Errorf("a large chunk has %d bytes", len(big.buf))
	}
	big.release()
	if m.used.Load() != 0 {
		t.Errorf("%d bytes in use", m.used.Load())
	}
}
