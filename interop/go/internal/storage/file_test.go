package storage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"interop/internal/pb"
)

func keys(t *testing.T, path string) ([]string, *file, error) {
	t.Helper()
	var keys []string
	file, err := openFile(path, func(request *pb.WriteRequest) { keys = append(keys, request.Key) })
	return keys, file, err
}

func TestWhatWasWrittenIsThereAndATornEndIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	_, file, err := keys(t, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		if err := file.append(&pb.WriteRequest{Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for length := len(whole)/2 + 1; length < len(whole); length++ {
		if err := os.WriteFile(path, whole[:length], 0o644); err != nil {
			t.Fatal(err)
		}
		found, file, err := keys(t, path)
		if err != nil || !slices.Equal(found, []string{"a"}) {
			t.Fatalf("of %d bytes: %v, %v", length, found, err)
		}
		if err := file.append(&pb.WriteRequest{Key: "c"}); err != nil {
			t.Fatal(err)
		}
		if found, _, err := keys(t, path); err != nil || !slices.Equal(found, []string{"a", "c"}) {
			t.Fatalf("after another write: %v, %v", found, err)
		}
	}
	whole[recordHeader] ^= 1
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys(t, path); err == nil {
		t.Fatal("a file that is damaged in the middle was taken")
	}
}
