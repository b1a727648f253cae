package placement

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A command is one record of the metadata log, readable with any tool that prints records:
//
//	key    name "/" level            CreateTopic/1
//	value  JSON object               {"name":"orders","id":"…","partitions":6,…}
//
// The level is the one with which the command got this form, so a release that is too old knows by how much.

// maxCommandBytes bounds what Decode accepts. The largest command, a topic of ten thousand partitions with every config
// set, is a few hundred KiB; a batch holds at most 1 MiB anyway.
const maxCommandBytes = 1 << 20

// decoders has one entry for each form of each command that this release understands.
var decoders = map[string]decoder{
	commandKey(FoundCluster{}):        decodeAs[FoundCluster],
	commandKey(RegisterNode{}):        decodeAs[RegisterNode],
	commandKey(UnregisterNode{}):      decodeAs[UnregisterNode],
	commandKey(CreateTopic{}):         decodeAs[CreateTopic],
	commandKey(DeleteTopic{}):         decodeAs[DeleteTopic],
	commandKey(AlterTopicConfig{}):    decodeAs[AlterTopicConfig],
	commandKey(AllocateProducerIDs{}): decodeAs[AllocateProducerIDs],
	commandKey(SetFeatureLevel{}):     decodeAs[SetFeatureLevel],
	commandKey(CreateACLs{}):          decodeAs[CreateACLs],
	commandKey(DeleteACLs{}):          decodeAs[DeleteACLs],
	commandKey(AlterUsers{}):          decodeAs[AlterUsers],
	commandKey(AlterQuotas{}):         decodeAs[AlterQuotas],
}

type decoder func(value []byte) (Command, error)

func decodeAs[C Command](value []byte) (Command, error) {
	var c C
	if len(value) > maxCommandBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(value), maxCommandBytes)
	}
	if err := unmarshalStrict(value, &c); err != nil {
		return nil, err
	}
	return c, nil
}

func commandKey(c Command) string {
	name, level := c.command()
	return name + "/" + strconv.Itoa(int(level))
}

// Encode returns key and value of the record that carries the command, in the newest form that a cluster at the level knows. A command that
// came later than the level is refused.
func Encode(c Command, level FeatureLevel) (key, value []byte, err error) {
	if name, own := c.command(); own > level {
		return nil, nil, tooNew("the command "+name, own, level)
	}
	c = newestForm(c, level)
	k := commandKey(c)
	if decoders[k] == nil {
		panic(fmt.Sprintf("placement: command %T has no decoder", c))
	}
	value, err = json.Marshal(c)
	if err != nil {
		return nil, nil, fmt.Errorf("placement: encode %s: %w", k, err)
	}
	if len(value) > maxCommandBytes {
		return nil, nil, refuse(ErrInvalidRequest, "the command %s takes %d bytes, at most %d are allowed: ask for less at once (partitions, configs, rules)",
			k, len(value), maxCommandBytes)
	}
	return []byte(k), value, nil
}

// Decode returns the command that a record carries. It is strict: a name, a level or a field that this release does not know is an
// error (*UnsupportedError when a newer release wrote it), because skipping it would let this node's table differ from the others'.
// The command does not alias key or value.
func Decode(key, value []byte) (Command, error) {
	if decode := decoders[string(key)]; decode != nil {
		c, err := decode(value)
		if err != nil {
			return nil, fmt.Errorf("placement: metadata command %s: %w", key, err)
		}
		return c, nil
	}
	name, level, err := parseKey(string(key))
	if err != nil {
		return nil, err
	}
	if level > SupportedLevel {
		return nil, &UnsupportedError{What: "metadata command " + string(key), Level: level, Supported: SupportedLevel}
	}
	return nil, &UnknownCommandError{Name: name, Level: level, Supported: SupportedLevel}
}

func parseKey(key string) (string, FeatureLevel, error) {
	name, digits, ok := strings.Cut(key, "/")
	level, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil || !isCommandName(name) || strconv.FormatUint(level, 10) != digits {
		if len(key) > 64 {
			key = key[:64] + "…"
		}
		return "", 0, fmt.Errorf("placement: %q is not the key of a metadata command (name/level)", key)
	}
	return name, FeatureLevel(level), nil
}

func isCommandName(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// unmarshalStrict decodes exactly one JSON object without unknown fields and with nothing behind it.
func unmarshalStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if !bytes.HasPrefix(data, []byte("{")) {
		return fmt.Errorf("not a JSON object")
	}
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bytes after the JSON object")
	}
	return nil
}
