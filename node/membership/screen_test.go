package membership

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

const testLabel = "c"

// labelled puts the label before the bytes of a message.
func labelled(message ...byte) []byte { return append(appendLabel(nil, testLabel), message...) }

// pushPull is a message with that header, as memberlist's codec writes it.
func pushPull(nodes, userState []byte) []byte {
	b := append(labelled(msgPushPull, 0x83, 0xa5), "Nodes"...)
	b = append(append(append(b, nodes...), 0xac), "UserStateLen"...)
	return append(append(append(b, userState...), 0xa4), "Join\xc3"...)
}

func TestScreenStream(t *testing.T) {
	for _, tc := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"exchange of states", pushPull([]byte{3}, []byte{0}), nil},
		{"four thousand nodes", pushPull([]byte{0xcd, 0x10, 0x00}, []byte{0}), nil},
		{"a million nodes", pushPull([]byte{0xd2, 0x00, 0x0f, 0x42, 0x40}, []byte{0}), errMessage},
		{"negative nodes", pushPull([]byte{0xff}, []byte{0}), errMessage},
		{"-1 nodes in eight bytes", pushPull([]byte{0xd3, 255, 255, 255, 255, 255, 255, 255, 255}, []byte{0}), errMessage},
		{"user state", pushPull([]byte{3}, []byte{0xce, 0x40, 0, 0, 0}), errMessage},
		{"ping", labelled(msgPing, 0x82), nil},
		{"compressed", labelled(9, 0x82), errMessage},
		{"user message", labelled(8, 0x82), errMessage},
		{"encrypted, to a node without key", labelled(msgEncrypt, 0xff, 0xff, 0xff, 0xff), nil},
		{"not a map", labelled(msgPushPull, 0xc0), errMessage},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), errUnlabelled},
		{"TLS", []byte{0x16, 3, 1, 2, 0}, errUnlabelled},
		{"length prefix of 1 GiB", []byte{0x40, 0, 0, 0}, errUnlabelled},
		{"another cluster", append(appendLabel(nil, "other"), msgPing), wrongLabelError{"other"}},
		{"nothing yet", nil, errShort},
		{"half a label", labelled()[:2], errShort},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := screenStream(tc.bytes, testLabel, false)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.want != nil {
				return
			}
			// What is let through is asked for byte by byte, never refused half-way.
			short := 0
			for i := range tc.bytes {
				switch err := screenStream(tc.bytes[:i], testLabel, false); {
				case errors.Is(err, errShort):
					short = i
				case err != nil:
					t.Fatalf("after %d bytes: %v", i, err)
				}
			}
			if short >= maxStreamHead {
				t.Errorf("needs %d bytes", short+1)
			}
		})
	}
}

func TestScreenPacket(t *testing.T) {
	crc := func(m ...byte) []byte { return append([]byte{msgCRC, 1, 2, 3, 4}, m...) }
	for _, tc := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"ping", labelled(msgPing, 0x80), nil},
		{"alive with checksum", labelled(crc(msgAlive, 0x80)...), nil},
		{"compound", labelled(msgCompound, 2, 0, 2, 0, 2, msgPing, 0x80, msgDead, 0x80), nil},
		{"compound with checksum", labelled(crc(msgCompound, 1, 0, 2, msgNack, 0x80)...), nil},
		{"compound of nothing", labelled(msgCompound, 0), nil},
		{"all that a body may have", labelled(msgPing, 0x85, 0xa1, 'k', 0xce, 1, 2, 3, 4, 0xd9, 1, 'k', 0xc3, 0xc4, 1, 0, 0x92, 1, 0xff, 0xc5, 0, 1, 7, 0xda, 0, 1, 'x', 0xcb, 1, 2, 3, 4, 5, 6, 7, 8, 0xc0), nil},
		{"no body", labelled(msgPing), errShort},
		{"body that is no map", labelled(msgAlive, 0x92, 1, 2), errMessage},
		{"text of 1 GiB", labelled(msgAlive, 0x86, 0xa4, 'N', 'o', 'd', 'e', 0xdb, 0x40, 0, 0, 0), errTooLong},
		{"bytes of 1 GiB", labelled(msgAlive, 0x86, 0xa4, 'M', 'e', 't', 'a', 0xc6, 0x40, 0, 0, 0), errTooLong},
		{"text of 1025", labelled(msgAlive, 0x86, 0xa4, 'N', 'o', 'd', 'e', 0xda, 4, 1), errTooLong},
		{"text longer than the packet", labelled(msgAlive, 0x86, 0xa4, 'N', 'o', 'd', 'e', 0xda, 4, 0), errShort},
		{"array of 1 Gi", labelled(msgAlive, 0x86, 0xa3, 'V', 's', 'n', 0xdd, 0x40, 0, 0, 0), errTooLong},
		{"map of 1 Gi", labelled(msgAlive, 0xdf, 0x40, 0, 0, 0), errMessage},
		{"extension", labelled(msgAlive, 0x81, 0xa1, 'x', 0xc9, 0x40, 0, 0, 0, 1), errTooLong},
		{"text of 1 GiB in a compound", labelled(msgCompound, 1, 0, 7, msgPing, 0x81, 0xdb, 0x40, 0, 0, 0), errTooLong},
		{"compressed", labelled(9, 0x82), errMessage},
		{"compressed in a compound", labelled(msgCompound, 2, 0, 2, 0, 1, msgPing, 0x80, 9), errMessage},
		{"compound in a compound", labelled(msgCompound, 1, 0, 2, msgCompound, 0), errMessage},
		{"compound cut off", labelled(msgCompound, 200, 0, 1), errShort},
		{"part cut off", labelled(msgCompound, 1, 0xff, 0xff, msgPing), errShort},
		{"label alone", labelled(), errShort},
		{"another cluster", appendLabel(nil, "d"), wrongLabelError{"d"}},
		{"empty label", []byte{msgLabel, 0, msgPing}, wrongLabelError{""}},
		{"noise", []byte("noise"), errUnlabelled},
		{"nothing", nil, errShort},
	} {
		if err := screenPacket(tc.bytes, testLabel, false); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	if err := screenPacket(labelled(9, 9, 9), testLabel, true); err != nil {
		t.Errorf("encrypted bytes mean nothing to the screen: %v", err)
	}
}

func FuzzScreen(f *testing.F) {
	f.Add(pushPull([]byte{3}, []byte{0}))
	f.Add(labelled(msgCompound, 2, 0, 2, 0, 1, msgPing, 0x80, msgDead))
	f.Add([]byte("GET / HTTP/1.1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		screenPacket(b, testLabel, false)
		err := screenStream(b, testLabel, false)
		if len(b) >= maxStreamHead && errors.Is(err, errShort) {
			t.Errorf("%d bytes are not enough to decide", len(b))
		}
		if !bytes.Equal(b, before) {
			t.Error("changed what it looked at")
		}
		var whole, cut packScreen
		want, got := whole.scan(b), error(nil)
		for i := 0; i < len(b) && got == nil; i++ {
			got = cut.scan(b[i : i+1])
		}
		if got != want || want == nil && whole != cut {
			t.Errorf("whole: %v, %+v; byte by byte: %v, %+v", want, whole, got, cut)
		}
	})
}

func TestMeta(t *testing.T) {
	self := Self{Node: 7, Boot: 1 << 40, StoreID: "4b1f6f1e-6e43-4f5c-9e5e-0f6a0b1c2d3e", ClusterID: "9c1f6f1e-6e43-4f5c-9e5e-0f6a0b1c2d3e", RPCAddress: "192.168.100.100:9092", Rack: "rack-1"}
	b, err := encodeMeta(self)
	if err != nil || len(b) >= 200 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if got, err := decodeMeta(b); err != nil || got != self {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := range b {
		if _, err := decodeMeta(b[:i]); err == nil {
			t.Errorf("cut to %d bytes: accepted", i)
		}
	}
	if _, err := decodeMeta(append(b, 0)); err == nil {
		t.Error("version 1 with more behind it: accepted")
	}
	later := append(bytes.Clone(b), 0, 5, 6)
	later[0] = 3
	if got, err := decodeMeta(later); err != nil || got != self {
		t.Errorf("a later version appends: got %+v, %v", got, err)
	}
	kafka := self
	kafka.KafkaAddress = "broker.example:9092"
	if b, err := encodeMeta(kafka); err != nil || b[0] != metaKafka {
		t.Errorf("with a Kafka address: % x, %v", b, err)
	} else if got, err := decodeMeta(b); err != nil || got != kafka {
		t.Errorf("with a Kafka address: got %+v, %v", got, err)
	} else if _, err := decodeMeta(append(b, 0)); err == nil {
		t.Error("version 2 with more behind it: accepted")
	}
	if _, err := encodeMeta(Self{RPCAddress: string(make([]byte, 250)), Rack: string(make([]byte, 250))}); err == nil {
		t.Error("500 bytes would make memberlist panic")
	}
}

func FuzzMeta(f *testing.F) {
	b, _ := encodeMeta(Self{Node: 7, Boot: 9, StoreID: "s", ClusterID: "c", RPCAddress: "a:1", Rack: "r"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeMeta(b)
		if err != nil || b[0] > metaKafka || b[0] == metaKafka && s.KafkaAddress == "" || len(b) > metaMax {
			return
		}
		if again, err := encodeMeta(s); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is %+v is %x, %v", b, s, again, err)
		}
	})
}

func ExampleDuplicateError() {
	fmt.Println(&DuplicateError{
		Node:  2,
		One:   Member{Self: Self{RPCAddress: "10.0.0.2:9092", StoreID: "s1"}, GossipAddress: "10.0.0.2:7946"},
		Other: Member{Self: Self{RPCAddress: "10.0.0.9:9092", StoreID: "s2"}, GossipAddress: "10.0.0.9:7946"},
	})
	// Output: node id 2 is in use twice: at 10.0.0.2:9092 (gossip 10.0.0.2:7946, store s1) and at 10.0.0.9:9092 (gossip 10.0.0.9:7946, store s2); give one of them an unused node id
}
