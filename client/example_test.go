package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/client"
)

// The first ten minutes: a topic, a record in it, and the record read back.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.New(client.Options{Servers: servers()}) // one address that answers is enough
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	err = c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "greetings", Partitions: 1})
	if err != nil {
		log.Fatal(err)
	}

	p, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)
	acks, err := p.ProduceSync(ctx, client.Record{Topic: "greetings", Key: []byte("first"), Value: []byte("Hello")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("written:", acks[0])

	k, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	err = k.Assign(client.TopicPartition{Topic: "greetings", Partition: 0}, client.Beginning)
	if err != nil {
		log.Fatal(err)
	}
	fetch, err := k.Poll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for m, err := range fetch.Records() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("read: %v, %s\n", m, m.Value)
	}
	// Output:
	// written: greetings-0@0
	// read: greetings-0@0 key "first" (5 bytes), Hello
}

func ExampleAdmin_CreateTopic() {
	ctx := context.Background()
	c, err := client.New(client.Options{Servers: servers()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	spec := client.TopicSpec{Name: "orders", Partitions: 12, Configs: map[string]string{"retention.ms": "604800000"}}
	if err := c.Admin().CreateTopic(ctx, spec); err != nil {
		log.Fatal(err)
	}

	// A program that starts again finds its topic.
	err = c.Admin().CreateTopic(ctx, spec)
	if err != nil && !errors.Is(err, client.ErrTopicExists) {
		log.Fatal(err)
	}
	fmt.Println("there already:", errors.Is(err, client.ErrTopicExists))
	// Output:
	// there already: true
}

// ProduceSync waits for the records of one call. Many goroutines may call it at once: their records share batches.
func ExampleProducer_ProduceSync() {
	ctx := context.Background()
	c, p := connect(ctx, "payments")
	defer c.Close()
	defer p.Close(ctx)

	acks, err := p.ProduceSync(ctx,
		client.Record{Topic: "payments", Partition: client.At(1), Value: []byte("10.00")},
		client.Record{Topic: "payments", Partition: client.At(1), Value: []byte("12.50")},
	)
	if err != nil {
		log.Fatal(err) // the first one; each Ack has its own
	}
	for _, ack := range acks {
		fmt.Println(ack.Partition, ack.Offset)
	}
	// Output:
	// 1 0
	// 1 1
}

// Produce does not wait. The callback hears of the outcome, in the order of the records of each partition; Opaque says which one it is.
func ExampleProducer_Produce() {
	ctx := context.Background()
	c, p := connect(ctx, "clicks")
	defer c.Close()

	heard := func(ack client.Ack) { // on a goroutine of the producer: it must not block
		if ack.Err != nil {
			log.Println(ack.Opaque, "is lost:", ack.Err)
			return
		}
		fmt.Println(ack.Opaque, "is at", ack.Offset)
	}
	for _, page := range []string{"home", "search", "basket"} {
		// It blocks only while ProducerOptions.BufferBytes are waiting.
		err := p.Produce(ctx, client.Record{Topic: "clicks", Partition: client.At(0), Value: []byte(page), Opaque: page}, heard)
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil { // returns when all callbacks have been called
		log.Fatal(err)
	}
	// Output:
	// home is at 0
	// search is at 1
	// basket is at 2
}

// Records with the same key are in the same partition, in order. It is the partition where Kafka's producers put the key.
func ExampleRecord() {
	ctx := context.Background()
	c, p := connect(ctx, "users")
	defer c.Close()
	defer p.Close(ctx)

	acks, err := p.ProduceSync(ctx,
		client.Record{Topic: "users", Key: []byte("alice"), Value: []byte("signed up")},
		client.Record{Topic: "users", Key: []byte("bob"), Value: []byte("signed up")},
		client.Record{Topic: "users", Key: []byte("alice"), Value: []byte("logged in")},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("alice and alice:", acks[0].Partition == acks[2].Partition)
	fmt.Println("in order:", acks[0].Offset < acks[2].Offset)
	// Output:
	// alice and alice: true
	// in order: true
}

// At names a partition. Without it the key decides.
func ExampleAt() {
	ctx := context.Background()
	c, p := connect(ctx, "shards")
	defer c.Close()
	defer p.Close(ctx)

	_, err := p.ProduceSync(ctx, client.Record{Topic: "shards", Partition: client.At(7), Value: []byte("v")})
	fmt.Println(errors.Is(err, client.ErrUnknownPartition))
	fmt.Println(err)
	// Output:
	// true
	// client: unknown partition 7: topic "shards" has partitions 0 to 2
}

// All partitions of a topic are read from their beginning, up to what is in them now.
func ExampleConsumer_Poll() {
	ctx := context.Background()
	c, p := connect(ctx, "letters")
	defer c.Close()
	defer p.Close(ctx)
	for i, letter := range []string{"a", "b", "c", "d", "e"} {
		_, err := p.ProduceSync(ctx, client.Record{Topic: "letters", Partition: client.At(client.PartitionID(i % 3)), Value: []byte(letter)})
		if err != nil {
			log.Fatal(err)
		}
	}

	k, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	partitions, err := c.Admin().Offsets(ctx, "letters")
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range partitions {
		if err := k.Assign(r.TopicPartition, client.Beginning); err != nil {
			log.Fatal(err)
		}
	}
	var letters []string
	for open := len(partitions); open > 0; {
		fetch, err := k.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for m, err := range fetch.Records() {
			if err != nil {
				log.Fatal(err)
			}
			letters = append(letters, string(m.Value)) // m is valid until the next Poll: string copies
		}
		if fetch.CaughtUp {
			k.Unassign(fetch.TopicPartition)
			open--
		}
	}
	slices.Sort(letters)
	fmt.Println(letters)
	// Output:
	// [a b c d e]
}

func ExampleConsumer_AssignAtTime() {
	ctx := context.Background()
	c, p := connect(ctx, "readings")
	defer c.Close()
	defer p.Close(ctx)
	begin := time.Now().Add(-4 * time.Hour)
	for i, value := range []string{"17°", "18°", "19°", "18°"} {
		at := begin.Add(time.Duration(i) * time.Hour)
		r := client.Record{Topic: "readings", Partition: client.At(0), Timestamp: at.UnixMilli(), Value: []byte(value)}
		if _, err := p.ProduceSync(ctx, r); err != nil {
			log.Fatal(err)
		}
	}

	k, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	if err := k.AssignAtTime(client.TopicPartition{Topic: "readings", Partition: 0}, begin.Add(90*time.Minute)); err != nil {
		log.Fatal(err)
	}
	for caughtUp := false; !caughtUp; {
		fetch, err := k.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		caughtUp = fetch.CaughtUp
		for m, err := range fetch.Records() {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(m.Offset, string(m.Value))
		}
	}
	// Output:
	// 2 19°
	// 3 18°
}

func ExampleAdmin_OffsetsForTime() {
	ctx := context.Background()
	c, p := connect(ctx, "events")
	defer c.Close()
	defer p.Close(ctx)
	begin := time.Now()
	if _, err := p.ProduceSync(ctx, client.Record{Topic: "events", Partition: client.At(1), Value: []byte("v")}); err != nil {
		log.Fatal(err)
	}

	offsets, err := c.Admin().OffsetsForTime(ctx, "events", begin)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range offsets {
		fmt.Println(o)
	}
	// Output:
	// events-0: no record that young
	// events-1@0
	// events-2: no record that young
}

func ExampleAdmin_DescribeTopics() {
	ctx := context.Background()
	c, p := connect(ctx, "stock")
	defer c.Close()
	defer p.Close(ctx)

	topics, err := c.Admin().DescribeTopics(ctx, "stock")
	if err != nil {
		log.Fatal(err)
	}
	for _, part := range topics[0].Partitions {
		fmt.Printf("partition %d: leader %d, replicas %v, in sync %v\n", part.Partition, part.Leader, part.Replicas, part.ISR)
	}

	_, err = c.Admin().DescribeTopics(ctx, "stok")
	fmt.Println(errors.Is(err, client.ErrUnknownTopic))
	// Output:
	// partition 0: leader 1, replicas [1], in sync [1]
	// partition 1: leader 1, replicas [1], in sync [1]
	// partition 2: leader 1, replicas [1], in sync [1]
	// true
}

// Errors are told apart with errors.Is. Those that a retry would help against are retried before anybody hears of them.
func Example_errors() {
	ctx := context.Background()
	c, p := connect(ctx, "limits")
	defer c.Close()
	defer p.Close(ctx)

	_, err := p.ProduceSync(ctx, client.Record{Topic: "limits", Value: make([]byte, 2<<20)})
	switch {
	case errors.Is(err, client.ErrRecordTooLarge):
		fmt.Println("split it")
	case errors.Is(err, client.ErrUnknownTopic), errors.Is(err, client.ErrNotAuthorized):
		fmt.Println("ask the operators")
	case errors.Is(err, client.ErrDeliveryTimeout), errors.Is(err, client.ErrUnacknowledged):
		fmt.Println("it may be written or not")
	case errors.Is(err, client.ErrNoNodeReachable):
		fmt.Println("look at the network")
	}

	k, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer k.Close()
	if err := k.Assign(client.TopicPartition{Topic: "limits", Partition: 0}, 1000); err != nil {
		log.Fatal(err)
	}
	_, err = k.Poll(ctx)
	var outOfRange *client.OutOfRangeError
	if errors.As(err, &outOfRange) {
		fmt.Printf("%s holds %d to %d\n", outOfRange.TopicPartition, outOfRange.Start, outOfRange.End)
	}
	// Output:
	// split it
	// limits-0 holds 0 to 0
}

// Producers and consumers are closed before their client. A producer waits for the outcome of its records, as long as its context lets it.
func ExampleProducer_Close() {
	ctx := context.Background()
	c, p := connect(ctx, "goodbyes")

	err := p.Produce(ctx, client.Record{Topic: "goodbyes", Value: []byte("bye")}, func(ack client.Ack) { fmt.Println("error:", ack.Err) })
	if err != nil {
		log.Fatal(err)
	}
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.Close(patience); err != nil {
		log.Fatal(err) // records without outcome are left; their callbacks have been called with ErrClosed
	}
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(p.Produce(ctx, client.Record{Topic: "goodbyes"}, nil), client.ErrClosed))
	// Output:
	// error: <nil>
	// true
}

// connect returns a client, and a producer for a new topic with 3 partitions.
func connect(ctx context.Context, topic string) (*client.Client, *client.Producer) {
	c, err := client.New(client.Options{Servers: servers()})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: 3}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	return c, p
}
