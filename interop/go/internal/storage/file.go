// Package storage has a replica of the store that keeps what it acknowledged, and a client that tells what it did.
package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"interop/internal/pb"
)

// file is a log of writes. Each is on disk before append returns.
type file struct{ os *os.File }

// A record is its length, a checksum, and a WriteRequest.
const recordHeader = 8

// openFile hands over what was written before. The last record may be one that a killed process has written in part: that was
// never acknowledged, and goes. Anything else that cannot be read is an error.
func openFile(path string, written func(*pb.WriteRequest)) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	bytes, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	read := 0
	for {
		rest := bytes[read:]
		if len(rest) < recordHeader {
			break
		}
		length := uint64(binary.BigEndian.Uint32(rest))
		if length > uint64(len(rest)-recordHeader) {
			break
		}
		end := recordHeader + int(length)
		payload := rest[recordHeader:end]
		request := new(pb.WriteRequest)
		if crc32.ChecksumIEEE(payload) != binary.BigEndian.Uint32(rest[4:]) {
			if end == len(rest) {
				break
			}
			return nil, fmt.Errorf("%s is damaged at byte %d", path, read)
		}
		if err := pb.Unmarshal(payload, request); err != nil {
			return nil, fmt.Errorf("%s is damaged at byte %d: %w", path, read, err)
		}
		written(request)
		read += end
	}
	if err := f.Truncate(int64(read)); err != nil {
		return nil, err
	}
	if _, err := f.Seek(int64(read), io.SeekStart); err != nil {
		return nil, err
	}
	return &file{f}, nil
}

func (f *file) append(request *pb.WriteRequest) error {
	payload, err := pb.Marshal(request)
	if err != nil {
		return err
	}
	record := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	record = binary.BigEndian.AppendUint32(record, crc32.ChecksumIEEE(payload))
	if _, err := f.os.Write(append(record, payload...)); err != nil {
		return err
	}
	return f.os.Sync()
}
