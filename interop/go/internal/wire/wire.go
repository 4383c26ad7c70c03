// Package wire has the envelope of every request and reply, as docs/wire.md describes it, and how gRPC carries it.
package wire

import (
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// Path is that of the one stream of a connection.
const Path = "/stream.Gorums/NodeStream"

// NodeID is the header by which a client that can be called says who it is.
const NodeID = "gorums-node-id"

// DynamicIDs is the first id of those that a server gives to clients that have none.
const DynamicIDs = 1 << 20

// ServerBit is set in the ids of calls that a server makes, and in those of their replies.
const ServerBit = uint64(1) << 63

// Stream describes the stream to gRPC.
var Stream = grpc.StreamDesc{StreamName: "NodeStream", ServerStreams: true, ClientStreams: true}

// Message is the envelope, stream.Message.
type Message struct {
	ID      uint64         `protobuf:"varint,1,opt,name=message_seq_no,proto3"`
	Method  string         `protobuf:"bytes,2,opt,name=method,proto3"`
	Status  *status.Status `protobuf:"bytes,3,opt,name=status,proto3"`
	Entry   []*Entry       `protobuf:"bytes,4,rep,name=entry,proto3"`
	Payload []byte         `protobuf:"bytes,5,opt,name=payload,proto3"`

	// What the file does not have; the name is that by which Go's runtime knows it.
	XXX_unrecognized []byte
}

func (*Message) Reset()           {}
func (m *Message) String() string { return fmt.Sprintf("%x %s", m.ID, m.Method) }
func (*Message) ProtoMessage()    {}

// Entry is one of the values of a request's metadata.
type Entry struct {
	Key   string `protobuf:"bytes,1,opt,name=key,proto3"`
	Value string `protobuf:"bytes,2,opt,name=value,proto3"`
}

func (*Entry) Reset()           {}
func (e *Entry) String() string { return e.Key + ": " + e.Value }
func (*Entry) ProtoMessage()    {}

// Codec encodes envelopes, and passes bytes on as they are.
type Codec struct{}

// Name is that of gRPC's own codec: the content type says no more than application/grpc.
func (Codec) Name() string { return "proto" }

// Marshal encodes a *Message, or takes a []byte as it is.
func (Codec) Marshal(value any) ([]byte, error) {
	switch value := value.(type) {
	case []byte:
		return value, nil
	case *Message:
		return proto.MarshalOptions{Deterministic: true}.Marshal(protoadapt.MessageV2Of(value))
	default:
		return nil, fmt.Errorf("a %T is no envelope", value)
	}
}

// Unmarshal decodes into a *Message.
func (Codec) Unmarshal(bytes []byte, value any) error {
	message, ok := value.(*Message)
	if !ok {
		return fmt.Errorf("a %T is no envelope", value)
	}
	return proto.Unmarshal(bytes, protoadapt.MessageV2Of(message))
}
