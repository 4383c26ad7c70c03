package main

import (
	"runtime"
	"syscall"
)

// usage is what a process has used since it started.
type usage struct {
	// Nanoseconds of the processor, in the program and in the system on its behalf.
	CPU int64 `json:"cpu_ns"`
	// The most memory that was resident, in bytes.
	Peak uint64 `json:"peak_bytes"`
}

func ownUsage() usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // Only a wrong argument is refused.
	}
	peak := uint64(r.Maxrss)
	if runtime.GOOS != "darwin" {
		peak *= 1024 // Everywhere else it is in KiB.
	}
	return usage{CPU: r.Utime.Nano() + r.Stime.Nano(), Peak: peak}
}
