package batch

import (
	"fmt"
	"testing"
)

var benchSizes = []int{100, 1024}

func benchBatch(b *testing.B, size int, c Compression) (*Builder, Batch) {
	var builder Builder
	value := make([]byte, size)
	for i := range value {
		value[i] = "abcdefghijklmnop"[i*i%13]
	}
	for builder.Len() < 64<<10 {
		builder.Append(Record{Timestamp: 1729289700308, Value: value})
	}
	out, err := builder.Finish(nil, Plain(c))
	if err != nil {
		b.Fatal(err)
	}
	return &builder, out
}

func perRecord(b *testing.B, records int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(records), "ns/record")
}

func BenchmarkBuild(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			builder, batch := benchBatch(b, size, None)
			value := make([]byte, size)
			n := builder.Count()
			dst := make([]byte, 0, len(batch))
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				builder.Reset()
				for range n {
					builder.Append(Record{Timestamp: 1729289700308, Value: value})
				}
				if _, err := builder.Finish(dst, Plain(None)); err != nil {
					b.Fatal(err)
				}
			}
			perRecord(b, n)
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	_, batch := benchBatch(b, 1024, None)
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		if err := Check(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckProduce(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			builder, batch := benchBatch(b, size, None)
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if err := CheckProduce(batch, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
			perRecord(b, builder.Count())
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			builder, batch := benchBatch(b, size, None)
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			var r Reader
			n := 0
			for b.Loop() {
				r.Reset(batch, 0)
				for r.Next() {
					n += len(r.Record().Value)
				}
				if r.Err() != nil {
					b.Fatal(r.Err())
				}
			}
			perRecord(b, builder.Count())
		})
	}
}

func BenchmarkCodecs(b *testing.B) {
	for _, c := range allCodecs {
		builder, batch := benchBatch(b, 1024, c)
		b.Run("compress/"+c.String(), func(b *testing.B) {
			dst := make([]byte, 0, 128<<10)
			b.SetBytes(int64(builder.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := builder.Finish(dst, Plain(c)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("decompress/"+c.String(), func(b *testing.B) {
			var r Reader
			b.SetBytes(int64(builder.Len()))
			b.ReportAllocs()
			for b.Loop() {
				r.Reset(batch, 1<<20)
				if r.Err() != nil {
					b.Fatal(r.Err())
				}
			}
		})
	}
}
