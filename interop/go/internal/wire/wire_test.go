package wire

import (
	"encoding/hex"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
)

func TestEnvelopesHaveTheBytesOfTheProtocol(t *testing.T) {
	key := []byte("\x0a\x09nosuchkey")
	for _, test := range []struct {
		message Message
		bytes   string
	}{
		{
			Message{ID: 1, Method: "proto.Storage.ReadRPC", Payload: key},
			"0801121570726f746f2e53746f726167652e526561645250432a0b0a096e6f737563686b6579",
		},
		{
			Message{ID: 9, Method: "proto.Storage.ReadRPC", Status: &status.Status{Code: 5, Message: "abc"}},
			"0809121570726f746f2e53746f726167652e526561645250431a0708051203616263",
		},
	} {
		bytes, err := Codec{}.Marshal(&test.message)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(bytes); got != test.bytes {
			t.Errorf("got %s, expected %s", got, test.bytes)
		}
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	var message Message
	if err := (Codec{}).Unmarshal([]byte{0x08, 0x07, 0x78, 0x01}, &message); err != nil {
		t.Fatal(err)
	}
	if message.ID != 7 || len(message.XXX_unrecognized) != 2 {
		t.Errorf("got %v, %x", message.ID, message.XXX_unrecognized)
	}
}
