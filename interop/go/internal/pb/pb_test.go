package pb

import (
	"encoding/hex"
	"reflect"
	"testing"
)

func TestMessagesHaveTheBytesOfTheirFiles(t *testing.T) {
	for _, test := range []struct {
		message Message
		bytes   string
	}{
		{&ReadRequest{Key: "nosuchkey"}, "0a096e6f737563686b6579"},
		{&Data{Number: 1, Bytes: []byte{2}}, "0801120102"},
		{&Seen{Numbers: []uint64{1, 2}, Metadata: []*Entry{{Key: "a", Value: "1"}}}, "0a0201021a060a01611201" + "31"},
		{&Empty{}, ""},
	} {
		bytes, err := Marshal(test.message)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(bytes); got != test.bytes {
			t.Errorf("%T: got %s, expected %s", test.message, got, test.bytes)
		}
		again := reflect.New(reflect.TypeOf(test.message).Elem()).Interface().(Message)
		if err := Unmarshal(bytes, again); err != nil || !reflect.DeepEqual(again, test.message) {
			t.Errorf("%T: read %v (%v)", test.message, again, err)
		}
	}
}
