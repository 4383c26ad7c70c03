// Package pb has the messages of interop/proto/interop.proto and examples/storage/proto/storage.proto.
//
// They are written by hand, with the tags by which Go's protobuf runtime knows fields, so that nothing has to be generated
// and no protoc is needed. A tag that does not fit its file fails the cases that use it.
package pb

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Message is implemented by pointers to all types of this package.
type Message = protoadapt.MessageV1

// Marshal encodes a message, with fields in the order of their numbers.
func Marshal(message Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(protoadapt.MessageV2Of(message))
}

// Unmarshal decodes a message into an empty one.
func Unmarshal(bytes []byte, message Message) error {
	return proto.Unmarshal(bytes, protoadapt.MessageV2Of(message))
}

// message makes a message of the struct that it is embedded in.
type message struct{}

func (*message) Reset()         {}
func (*message) String() string { return "" }
func (*message) ProtoMessage()  {}

// Empty is google.protobuf.Empty.
type Empty struct{ message }

type Data struct {
	message
	Number uint64 `protobuf:"varint,1,opt,name=number,proto3"`
	Bytes  []byte `protobuf:"bytes,2,opt,name=bytes,proto3"`
}

type CountRequest struct {
	message
	From    uint64   `protobuf:"varint,1,opt,name=from,proto3"`
	Replies uint64   `protobuf:"varint,2,opt,name=replies,proto3"`
	Failure *Failure `protobuf:"bytes,3,opt,name=failure,proto3"`
}

type Failure struct {
	message
	Code    int32        `protobuf:"varint,1,opt,name=code,proto3"`
	Message string       `protobuf:"bytes,2,opt,name=message,proto3"`
	Details []*anypb.Any `protobuf:"bytes,3,rep,name=details,proto3"`
}

type HoldRequest struct {
	message
	Data    *Data `protobuf:"bytes,1,opt,name=data,proto3"`
	Release bool  `protobuf:"varint,2,opt,name=release,proto3"`
}

type InspectRequest struct {
	message
	Noted     uint64 `protobuf:"varint,1,opt,name=noted,proto3"`
	Cancelled uint64 `protobuf:"varint,2,opt,name=cancelled,proto3"`
}

type Seen struct {
	message
	Numbers    []uint64 `protobuf:"varint,1,rep,packed,name=numbers,proto3"`
	Cancelled  []uint64 `protobuf:"varint,2,rep,packed,name=cancelled,proto3"`
	Metadata   []*Entry `protobuf:"bytes,3,rep,name=metadata,proto3"`
	Connection []*Entry `protobuf:"bytes,4,rep,name=connection,proto3"`
}

type Entry struct {
	message
	Key   string `protobuf:"bytes,1,opt,name=key,proto3"`
	Value string `protobuf:"bytes,2,opt,name=value,proto3"`
}

type Frames struct {
	message
	Frames [][]byte `protobuf:"bytes,1,rep,name=frames,proto3"`
}

type RelayRequest struct {
	message
	Path []uint32 `protobuf:"varint,1,rep,packed,name=path,proto3"`
	Data *Data    `protobuf:"bytes,2,opt,name=data,proto3"`
	Via  uint32   `protobuf:"varint,3,opt,name=via,proto3"`
}

type RelayReply struct {
	message
	Names    []string `protobuf:"bytes,1,rep,name=names,proto3"`
	Data     *Data    `protobuf:"bytes,2,opt,name=data,proto3"`
	Metadata []*Entry `protobuf:"bytes,3,rep,name=metadata,proto3"`
}

// ViaOwn is Via.OWN.
const ViaOwn = 1

type GatherRequest struct {
	message
	Depth uint32 `protobuf:"varint,1,opt,name=depth,proto3"`
	Via   uint32 `protobuf:"varint,2,opt,name=via,proto3"`
}

type Gathered struct {
	message
	Names []string `protobuf:"bytes,1,rep,name=names,proto3"`
}

type Levels struct {
	message
	Levels []uint32 `protobuf:"varint,1,rep,packed,name=levels,proto3"`
}

type ClientsRequest struct {
	message
	Clients  uint32          `protobuf:"varint,1,opt,name=clients,proto3"`
	Release  bool            `protobuf:"varint,2,opt,name=release,proto3"`
	Echo     *Data           `protobuf:"bytes,3,opt,name=echo,proto3"`
	Note     *NoteRange      `protobuf:"bytes,4,opt,name=note,proto3"`
	Count    *CountRequest   `protobuf:"bytes,5,opt,name=count,proto3"`
	Fail     *Failure        `protobuf:"bytes,6,opt,name=fail,proto3"`
	Inspect  *InspectRequest `protobuf:"bytes,7,opt,name=inspect,proto3"`
	Metadata []*Entry        `protobuf:"bytes,8,rep,name=metadata,proto3"`
}

type NoteRange struct {
	message
	From  uint64 `protobuf:"varint,1,opt,name=from,proto3"`
	Count uint64 `protobuf:"varint,2,opt,name=count,proto3"`
}

type ClientsReply struct {
	message
	Answers []*ClientAnswer `protobuf:"bytes,1,rep,name=answers,proto3"`
}

type ClientAnswer struct {
	message
	Node    uint32   `protobuf:"varint,1,opt,name=node,proto3"`
	Data    []*Data  `protobuf:"bytes,2,rep,name=data,proto3"`
	Failure *Failure `protobuf:"bytes,3,opt,name=failure,proto3"`
	Seen    *Seen    `protobuf:"bytes,4,opt,name=seen,proto3"`
}

type ReadRequest struct {
	message
	Key string `protobuf:"bytes,1,opt,name=key,proto3"`
}

type ReadResponse struct {
	message
	OK    bool                   `protobuf:"varint,1,opt,name=OK,proto3"`
	Value string                 `protobuf:"bytes,2,opt,name=value,proto3"`
	Time  *timestamppb.Timestamp `protobuf:"bytes,3,opt,name=time,proto3"`
}

type WriteRequest struct {
	message
	Key   string                 `protobuf:"bytes,1,opt,name=key,proto3"`
	Value string                 `protobuf:"bytes,2,opt,name=value,proto3"`
	Time  *timestamppb.Timestamp `protobuf:"bytes,3,opt,name=time,proto3"`
}

type WriteResponse struct {
	message
	New bool `protobuf:"varint,1,opt,name=new,proto3"`
}
