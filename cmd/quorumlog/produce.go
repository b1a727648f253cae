package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
)

// maxLine is where a line is cut off in memory: no topic takes records this large, and the error names the whole size.
const maxLine = 4 << 20

// produceFlags are the flags of the produce command as typed.
type produceFlags struct {
	conn            connection
	out             output
	acks            string
	separator       string
	partition       int32
	rate            float64
	deliveryTimeout time.Duration
	linger          time.Duration
	compression     string
}

func newProduceCommand() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Produce the lines of the standard input",
		Long: `Produce the lines of the standard input, one record each.

With -o json, each acknowledged batch is reported on a line of its own as soon as it is acknowledged. The exit code is 1 if any
line was not acknowledged. SIGINT and SIGTERM end the reading; what was read until then is still produced.`,
		Args: oneArgument("topic name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := f.options()
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			return f.run(ctx, args[0], options, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f.conn.register(cmd)
	f.out.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.acks, "acks", "all", "`when` a record counts as written: all (committed), 1 (on the leader's disk) or 0 (sent)")
	flags.StringVar(&f.separator, "key-separator", "", "`text` between key and value of each line (default: records have no key)")
	flags.Int32Var(&f.partition, "partition", -1, "produce to this partition only (default: by key, or in turn)")
	flags.Float64Var(&f.rate, "rate", 0, "records per `second` (default: as fast as they are taken)")
	flags.DurationVar(&f.deliveryTimeout, "delivery-timeout", 2*time.Minute, "how long a record may wait for its acknowledgement, retries included")
	flags.DurationVar(&f.linger, "linger", 5*time.Millisecond, "how long a batch waits for more records")
	flags.StringVar(&f.compression, "compression", "none", "`codec`: none, gzip, snappy, lz4 or zstd")
	return cmd
}

func (f *produceFlags) options() (client.ProducerOptions, error) {
	o := client.ProducerOptions{Linger: f.linger, DeliveryTimeout: f.deliveryTimeout}
	switch f.acks {
	case "all", "-1":
	case "1":
		o.Acks = client.AcksLeader
	case "0":
		o.Acks = client.AcksNone
	default:
		return o, fmt.Errorf("--acks %s: must be all, 1 or 0", f.acks)
	}
	if f.rate < 0 {
		return o, fmt.Errorf("--rate %v: must not be negative", f.rate)
	}
	if f.deliveryTimeout <= 0 {
		return o, fmt.Errorf("--delivery-timeout %v: must be positive", f.deliveryTimeout)
	}
	if f.linger < 0 {
		return o, fmt.Errorf("--linger %v: must not be negative", f.linger)
	}
	if f.partition < -1 {
		return o, fmt.Errorf("--partition %d: must be 0 or more", f.partition)
	}
	var err error
	if o.Compression, err = client.ParseCompression(f.compression); err != nil {
		return o, fmt.Errorf("--compression %q: must be none, gzip, snappy, lz4 or zstd", f.compression)
	}
	return o, nil
}

// choice is the partition that the flags name, if they do.
func (f *produceFlags) choice() client.Choice {
	if f.partition < 0 {
		return client.Choice{}
	}
	return client.At(client.PartitionID(f.partition))
}

// run produces lines until the input or ctx ends.
func (f *produceFlags) run(ctx context.Context, topic string, options client.ProducerOptions, in io.Reader, out io.Writer) (err error) {
	c, err := f.conn.connect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	err = f.conn.bounded(ctx, c, func(ctx context.Context, a *client.Admin) error {
		topics, err := a.DescribeTopics(ctx, topic)
		if err != nil {
			return unknownTopic(ctx, a, topic, err)
		}
		if n := len(topics[0].Partitions); int(f.partition) >= n {
			return fmt.Errorf("topic %q has no partition %d: it has %d, from 0", topic, f.partition, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	reading, giveUp := context.WithCancel(ctx)
	defer giveUp()
	t := &tally{out: out, json: f.out.json(), giveUp: giveUp}
	options.OnBatch = t.ended
	p, err := c.NewProducer(options)
	if err != nil {
		return err
	}
	lines := lineProducer{
		producer: p, tally: t, topic: topic, partition: f.choice(), separator: []byte(f.separator), rate: f.rate,
	}
	readErr := lines.run(reading, in)
	// A record waits for its outcome at most this long, so this wait ends by itself, also after a signal.
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), options.DeliveryTimeout+time.Second)
	defer cancel()
	closeErr := p.Close(flush)
	return errors.Join(readErr, t.verdict(topic, closeErr))
}

// lineProducer makes a record of each line.
type lineProducer struct {
	producer  *client.Producer
	tally     *tally
	topic     string
	partition client.Choice
	separator []byte
	rate      float64

	mu      sync.Mutex // held while a line is produced
	stopped bool
}

// run reads until the input or ctx ends. A read of the standard input cannot be interrupted, so after a signal the reading
// goroutine is left behind, in its read, until the process ends: it can produce nothing any more.
func (l *lineProducer) run(ctx context.Context, in io.Reader) error {
	done := make(chan error, 1)
	go func() { done <- l.read(ctx, in) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stopped = true
		return nil
	}
}

func (l *lineProducer) read(ctx context.Context, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	pace := newPace(l.rate)
	line := make([]byte, 0, 4<<10)
	for number := 1; ; number++ {
		var size int
		var err error
		line, size, err = readLine(r, line[:0])
		if err == nil || size > 0 {
			if !pace.wait(ctx) {
				return nil
			}
			l.produce(ctx, number, line, size)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("cannot read line %d of the input: %w", number, err)
		case ctx.Err() != nil:
			return nil
		}
	}
}

func (l *lineProducer) produce(ctx context.Context, number int, line []byte, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	r := client.Record{Topic: l.topic, Partition: l.partition, Value: line}
	if len(l.separator) > 0 {
		key, value, ok := bytes.Cut(line, l.separator)
		if !ok {
			l.tally.refused(number, fmt.Errorf("no key separator %q in it", l.separator))
			return
		}
		r.Key, r.Value = key, value
	}
	if size > len(line) {
		l.tally.refused(number, fmt.Errorf("record of %d bytes is larger than any max.message.bytes (at most %d)", size, maxLine))
		return
	}
	switch err := l.producer.Produce(ctx, r, nil); {
	case err == nil:
		l.tally.taken.Add(1)
	case ctx.Err() == nil:
		l.tally.refused(number, err)
	}
}

// readLine reads a line without its end. size is its whole length; line is at most maxLine of it. At the end of the input the
// error is io.EOF, with the last line if it has no end.
func readLine(r *bufio.Reader, buffer []byte) (line []byte, size int, err error) {
	for {
		piece, err := r.ReadSlice('\n')
		ended := err == nil
		if ended {
			piece = piece[:len(piece)-1]
		}
		size += len(piece)
		buffer = append(buffer, piece[:min(len(piece), maxLine-len(buffer))]...)
		if ended || !errors.Is(err, bufio.ErrBufferFull) {
			return buffer, size, err
		}
	}
}

// pace lets one record pass at a time. What was late is caught up on.
type pace struct {
	rate  float64
	begin time.Time
	n     float64
	timer *time.Timer
}

func newPace(rate float64) *pace { return &pace{rate: rate, begin: time.Now()} }

// wait returns when the next record is due; false: ctx has ended.
func (p *pace) wait(ctx context.Context) bool {
	if p.rate <= 0 {
		return ctx.Err() == nil
	}
	due := p.begin.Add(time.Duration(p.n / p.rate * float64(time.Second)))
	p.n++
	wait := time.Until(due)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	if p.timer == nil {
		p.timer = time.NewTimer(wait)
	} else {
		p.timer.Reset(wait)
	}
	select {
	case <-p.timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tally counts outcomes.
type tally struct {
	out    io.Writer
	json   bool
	giveUp func() // ends the reading of more records, which would be refused as well

	taken atomic.Int64 // by the producer

	mu       sync.Mutex
	acked    int64
	failed   int64
	first    error // of those that failed or were refused
	gaveUp   bool
	writeErr error
}

// batchLine is the line of an acknowledged batch.
type batchLine struct {
	Partition  client.PartitionID `json:"partition"`
	BaseOffset client.Offset      `json:"base_offset"`
	Count      int                `json:"count"`
}

// ended takes the outcome of a batch.
func (t *tally) ended(b client.BatchAck) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.Err != nil {
		t.failed += int64(b.Count)
		t.noteLocked(b.Err)
		return
	}
	t.acked += int64(b.Count)
	if !t.json || t.writeErr != nil {
		return
	}
	line, err := json.Marshal(batchLine{b.Partition, b.BaseOffset, b.Count})
	if err == nil {
		_, err = t.out.Write(append(line, '\n'))
	}
	t.writeErr = err
}

// refused takes a line that was not produced at all.
func (t *tally) refused(number int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	t.noteLocked(fmt.Errorf("line %d: %w", number, err))
}

func (t *tally) noteLocked(err error) {
	if t.first == nil {
		t.first = err
	}
	if errors.Is(err, client.ErrNotAuthorized) || errors.Is(err, client.ErrNotAuthenticated) {
		t.gaveUp = true
		t.giveUp()
	}
}

// verdict says how many records were acknowledged, or returns that some were not.
func (t *tally) verdict(topic string, closeErr error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	missing := max(t.failed, t.taken.Load()-t.acked)
	rest := ""
	if t.gaveUp {
		rest = ", and no more was read"
	}
	switch {
	case missing > 0 && t.first != nil:
		return fmt.Errorf("%d of %d records were not acknowledged%s, the first because: %w", missing, t.acked+missing, rest, t.first)
	case missing > 0:
		return fmt.Errorf("%d of %d records were not acknowledged: %w", missing, t.acked+missing, closeErr)
	case t.writeErr != nil:
		return fmt.Errorf("cannot write the acknowledgements: %w", t.writeErr)
	}
	if !t.json {
		_, err := fmt.Fprintf(t.out, "Produced %d records to topic %s.\n", t.acked, topic)
		return err
	}
	return nil
}
