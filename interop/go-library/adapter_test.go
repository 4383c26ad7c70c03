package main

import (
	"encoding/hex"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"interop/internal/wire"
)

func TestTheFormerFormHasEnvelopeAndPayloadBehindTheirLengths(t *testing.T) {
	message := &wire.Message{ID: 1, Method: "a.B.C", Payload: []byte{8, 7}}
	bytes, err := formerCodec{}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(bytes); got != "09"+"0801"+"1205612e422e43"+"02"+"0807" {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsWrittenInTheFormerFormIsReadAgain(t *testing.T) {
	for _, message := range []*wire.Message{
		{ID: 1 << 62, Method: "a.B.C"},
		{ID: 2, Method: "a.B.C", Entry: []*wire.Entry{{Key: "a", Value: "1"}}, Payload: make([]byte, 300)},
		{ID: 3, Method: "a.B.C", Status: &status.Status{Code: 5, Message: "none"}},
	} {
		bytes, err := formerCodec{}.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		var read wire.Message
		if err := (formerCodec{}).Unmarshal(bytes, &read); err != nil {
			t.Fatal(err)
		}
		same := read.ID == message.ID && read.Method == message.Method && len(read.Payload) == len(message.Payload)
		if !same || len(read.Entry) != len(message.Entry) || !proto.Equal(read.Status, message.Status) {
			t.Errorf("wrote %v, read %v", message, &read)
		}
		for cut := range bytes {
			if (formerCodec{}).Unmarshal(bytes[:cut], new(wire.Message)) == nil {
				t.Errorf("%d of %d bytes were taken for a message", cut, len(bytes))
			}
		}
	}
}
