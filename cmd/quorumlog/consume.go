package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// consumeFlags are the flags of the consume command as typed.
type consumeFlags struct {
	conn        connection
	out         output
	fromStart   bool
	follow      bool
	partition   int32
	offset      string
	since       string
	maxMessages int64
	format      messageFormat
}

// messageFormat says what is printed of a message, in this order, separated by separator.
type messageFormat struct {
	timestamp, partition, offset, headers, key bool
	separator                                  string
}

func newConsumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print the records of a topic",
		Long: `Print the records of a topic, up to the last one that is committed when the command starts; with --follow, for ever.

Without --from-beginning, --offset or --since it begins behind the last record, which only makes sense with --follow. With -o json each
record is one line; a key or value that is not UTF-8 is printed in base64 as key_base64 or value_base64.`,
		Args: oneArgument("topic name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := f.start(cmd)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			if from == client.End && !f.follow {
				fmt.Fprintln(cmd.ErrOrStderr(), "quorumlog: nothing to print: without --from-beginning, --offset or --since, only --follow shows records")
				return nil
			}
			return f.run(ctx, args[0], from, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.conn.register(cmd)
	f.out.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.fromStart, "from-beginning", false, "begin with the first record that is still there")
	flags.Int32Var(&f.partition, "partition", -1, "read only this partition (default: all)")
	flags.StringVar(&f.offset, "offset", "", "begin at this `offset` of --partition: a number, beginning or end")
	flags.StringVar(&f.since, "since", "", "begin with the first record of this `time` or later: 2026-01-31T12:00:00Z, or 90m for 90 minutes ago")
	flags.Int64Var(&f.maxMessages, "max-messages", 0, "end after this `number` of records (default: no limit)")
	flags.BoolVar(&f.follow, "follow", false, "go on with new records until interrupted")
	flags.BoolVar(&f.format.timestamp, "print-timestamp", false, "print the time of each record, in ms since 1970")
	flags.BoolVar(&f.format.partition, "print-partition", false, "print the partition")
	flags.BoolVar(&f.format.offset, "print-offset", false, "print the offset")
	flags.BoolVar(&f.format.headers, "print-headers", false, "print the headers")
	flags.BoolVar(&f.format.key, "print-key", false, "print the key")
	flags.StringVar(&f.format.separator, "key-separator", "\t", "`text` between what is printed of a record")
	return cmd
}

// start is the offset that the flags name.
func (f *consumeFlags) start(cmd *cobra.Command) (id.Offset, error) {
	if cmd.Flags().Changed("partition") && f.partition < 0 {
		return 0, fmt.Errorf("--partition %d: must be 0 or more", f.partition)
	}
	if f.maxMessages < 0 {
		return 0, fmt.Errorf("--max-messages %d: must not be negative", f.maxMessages)
	}
	switch {
	case f.since != "" && (f.offset != "" || f.fromStart):
		return 0, errors.New("--since excludes --offset and --from-beginning")
	case f.since != "":
		_, err := sinceTime(f.since, time.Now())
		return client.AtTime, err
	case f.offset == "" && f.fromStart:
		return client.Beginning, nil
	case f.offset == "":
		return client.End, nil
	case f.fromStart:
		return 0, errors.New("--offset and --from-beginning exclude each other")
	case f.partition < 0:
		return 0, errors.New("--offset needs --partition: offsets of different partitions have nothing to do with each other")
	case f.offset == "beginning" || f.offset == "earliest":
		return client.Beginning, nil
	case f.offset == "end" || f.offset == "latest":
		return client.End, nil
	}
	n, err := strconv.ParseInt(f.offset, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("--offset %q: must be a number, beginning or end", f.offset)
	}
	return id.Offset(n), nil
}

// sinceTime is the time that --since names.
func sinceTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("--since %q: must be a time like 2026-01-31T12:00:00Z, or how long ago, like 90m", text)
	}
	return t, nil
}

// begin is where the partitions of ranges are read from, in their order.
func (f *consumeFlags) begin(ctx context.Context, a *client.Admin, topic string, from client.Offset, ranges []client.OffsetRange) ([]client.Offset, error) {
	at := make([]client.Offset, len(ranges))
	var timed []client.TimeOffset
	if from == client.AtTime {
		t, err := sinceTime(f.since, time.Now())
		if err != nil {
			return nil, err
		}
		if timed, err = a.OffsetsForTime(ctx, topic, t); err != nil {
			return nil, err
		}
	}
	for i, r := range ranges {
		switch at[i] = from; {
		case from == client.Beginning:
			at[i] = r.Start
		case from == client.End, from == client.AtTime && timed[i].Offset == client.End:
			at[i] = r.End
		case from == client.AtTime:
			at[i] = min(timed[i].Offset, r.End) // it was asked for later
		}
	}
	return at, nil
}

// run prints records until there is nothing more to print, or ctx ends.
func (f *consumeFlags) run(ctx context.Context, topic string, from id.Offset, out, errs io.Writer) (err error) {
	c, err := f.conn.connect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var ranges []client.OffsetRange
	var begin []client.Offset
	err = f.conn.bounded(ctx, c, func(ctx context.Context, a *client.Admin) (err error) {
		ranges, err = a.Offsets(ctx, topic)
		if err != nil {
			return unknownTopic(ctx, a, topic, err)
		}
		if int(f.partition) >= len(ranges) {
			return fmt.Errorf("topic %q has no partition %d: it has %d, from 0", topic, f.partition, len(ranges))
		}
		begin, err = f.begin(ctx, a, topic, from, ranges)
		return err
	})
	if err != nil {
		return err
	}
	if f.partition >= 0 {
		ranges, begin = ranges[f.partition:f.partition+1], begin[f.partition:f.partition+1]
	}
	k, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 64<<10)
	p := printing{flags: f, consumer: k, out: w, errs: errs}
	err = p.run(ctx, ranges, begin)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // interrupted
	}
	return errors.Join(err, w.Flush(), k.Close())
}

// printing is one run of the consume command.
type printing struct {
	flags    *consumeFlags
	consumer *client.Consumer
	out      *bufio.Writer
	errs     io.Writer

	ends    map[id.Partition]id.Offset // partitions that are not through, and where they will be; nil with --follow
	printed int64
	unread  int // batches
	line    []byte
}

func (p *printing) run(ctx context.Context, ranges []client.OffsetRange, begin []client.Offset) error {
	if !p.flags.follow {
		p.ends = make(map[id.Partition]id.Offset)
	}
	for i, r := range ranges {
		at := begin[i]
		if p.ends != nil {
			if at == r.End {
				continue
			}
			p.ends[r.Partition] = r.End
		}
		if err := p.consumer.Assign(r.TopicPartition, at); err != nil {
			return err
		}
	}
	for p.flags.follow || len(p.ends) > 0 {
		fetch, err := p.consumer.Poll(ctx)
		if err != nil {
			if err := p.goesOn(err); err != nil {
				return err
			}
			continue
		}
		if full, err := p.fetch(fetch); full || err != nil {
			return errors.Join(err, p.unreadError())
		}
		// On a terminal or in a pipe, what is there must be seen before the next wait.
		if fetch.CaughtUp {
			if err := p.out.Flush(); err != nil {
				return err
			}
		}
	}
	return p.unreadError()
}

// goesOn says what is wrong and returns nil if that is no reason to end: a batch that cannot be read, behind which others can, or, for who wants to
// follow, that no node is there for a while.
func (p *printing) goesOn(err error) error {
	var damaged *client.BatchError
	switch {
	case errors.As(err, &damaged):
		p.unread++
	case p.flags.follow && errors.Is(err, client.ErrNoNodeReachable):
	default:
		return err
	}
	if err := p.out.Flush(); err != nil { // in the order in which it came
		return err
	}
	fmt.Fprintln(p.errs, "quorumlog:", err)
	return nil
}

func (p *printing) unreadError() error {
	if p.unread == 0 {
		return nil
	}
	return fmt.Errorf("%d batches could not be read: their records are missing", p.unread)
}

// fetch prints a fetch, up to the partition's end if it has one; full: that was the last message wanted.
func (p *printing) fetch(f client.Fetch) (full bool, err error) {
	end, limited := p.ends[f.Partition]
	if p.ends != nil && !limited {
		return false, nil // through already
	}
	for m, err := range f.Records() {
		if err != nil {
			if err := p.goesOn(err); err != nil {
				return false, err
			}
			continue
		}
		if limited && m.Offset >= end {
			break
		}
		if err := p.message(m); err != nil {
			return false, err
		}
		p.printed++
		if p.printed == p.flags.maxMessages {
			return true, nil
		}
	}
	if limited && f.Next >= end {
		delete(p.ends, f.Partition)
		p.consumer.Unassign(f.TopicPartition)
	}
	return false, nil
}

func (p *printing) message(m client.Message) (err error) {
	if p.flags.out.json() {
		p.line, err = appendJSON(p.line[:0], m)
	} else {
		p.line = p.flags.format.append(p.line[:0], m)
	}
	if err == nil {
		_, err = p.out.Write(append(p.line, '\n'))
	}
	return err
}

// append adds a message in the form of kafka-console-consumer.
func (f *messageFormat) append(dst []byte, m client.Message) []byte {
	if f.timestamp {
		dst = fmt.Appendf(dst, "CreateTime:%d%s", m.Timestamp, f.separator)
	}
	if f.partition {
		dst = fmt.Appendf(dst, "Partition:%d%s", m.Partition, f.separator)
	}
	if f.offset {
		dst = fmt.Appendf(dst, "Offset:%d%s", m.Offset, f.separator)
	}
	if f.headers {
		dst = append(appendHeaders(dst, m.Headers), f.separator...)
	}
	if f.key {
		dst = append(appendText(dst, m.Key), f.separator...)
	}
	return appendText(dst, m.Value)
}

func appendHeaders(dst []byte, headers []client.Header) []byte {
	if len(headers) == 0 {
		return append(dst, "NO_HEADERS"...)
	}
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, h.Key...), ':')
		dst = appendText(dst, h.Value)
	}
	return dst
}

func appendText(dst, b []byte) []byte {
	if b == nil {
		return append(dst, "null"...)
	}
	return append(dst, b...)
}

// messageLine is a message as one line of JSON.
type messageLine struct {
	Partition   id.Partition `json:"partition"`
	Offset      id.Offset    `json:"offset"`
	Timestamp   int64        `json:"timestamp"`
	Key         *string      `json:"key"`
	KeyBase64   []byte       `json:"key_base64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 []byte       `json:"value_base64,omitempty"`
	Headers     []headerLine `json:"headers,omitempty"`
}

type headerLine struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 []byte  `json:"value_base64,omitempty"`
}

func appendJSON(dst []byte, m client.Message) ([]byte, error) {
	l := messageLine{Partition: m.Partition, Offset: m.Offset, Timestamp: m.Timestamp}
	l.Key, l.KeyBase64 = textOrBytes(m.Key)
	l.Value, l.ValueBase64 = textOrBytes(m.Value)
	for _, h := range m.Headers {
		line := headerLine{Key: h.Key}
		line.Value, line.ValueBase64 = textOrBytes(h.Value)
		l.Headers = append(l.Headers, line)
	}
	out, err := json.Marshal(l)
	return slices.Concat(dst, out), err
}

// textOrBytes is b as text if it is UTF-8, else as bytes, which JSON shows in base64. Both are nil for null.
func textOrBytes(b []byte) (*string, []byte) {
	switch {
	case b == nil:
		return nil, nil
	case utf8.Valid(b):
		s := string(b)
		return &s, nil
	}
	return nil, b
}
