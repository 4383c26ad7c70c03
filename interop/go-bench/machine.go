package main

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"time"
)

// The kernel counts in hundredths of a second, whatever it ticks in.
const tick = 10 * time.Millisecond

// busy is the part of the machine that others may take before figures say little. It is that of gorums-bench.
const busy = 0.05

// activity is what the whole machine had done at a time.
type activity struct {
	at      time.Time
	running time.Duration
	stolen  time.Duration
}

// machineActivity tells it where the system does, which Linux does.
func machineActivity() *activity {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return nil
	}
	ticks := func(field int) time.Duration {
		count, err := strconv.ParseInt(string(fields[field]), 10, 64)
		if err != nil {
			return 0
		}
		return time.Duration(count) * tick
	}
	// Programs, those that are nice, and the system; interrupts may be our own.
	return &activity{at: time.Now(), running: ticks(1) + ticks(2) + ticks(3), stolen: ticks(8)}
}

// others is the part of the machine that others took since before, when this program and its servers took own nanoseconds.
func (a *activity) others(before *activity, own int64) *float64 {
	if a == nil || before == nil {
		return nil
	}
	whole := float64(a.at.Sub(before.at)) * float64(runtime.NumCPU())
	running := float64(a.running-before.running) - float64(own)
	part := min((max(running, 0)+float64(a.stolen-before.stolen))/whole, 1)
	return &part
}
