package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

const (
	// reconnectEvery is the age of a connection that the client replaces.
	reconnectEvery = 1700 * time.Millisecond
	// paceEvery is the interval of the calls that are due.
	paceEvery = time.Millisecond
	// failuresKept is the number of failures that are reported in words.
	failuresKept = 20
	waitTimeout  = 60 * time.Second
)

// load makes calls at a constant rate over all slots until it is stopped.
type load struct {
	settings
	address string
	root    string
	slots   []*slot
	stop    chan struct{}
	running sync.WaitGroup

	calls, commits, failed, connects atomic.Int64
	mutex                            sync.Mutex
	failures                         []string
	latencies                        []time.Duration
	began                            time.Time
}

// loadReport is what a load did.
type loadReport struct {
	Calls          int64    `json:"calls"`
	Commits        int64    `json:"commits"`
	Failed         int64    `json:"failed"`
	Connects       int64    `json:"connects"`
	Seconds        float64  `json:"seconds"`
	CallsPerSecond float64  `json:"calls_per_second"`
	P50Ms          float64  `json:"p50_ms"`
	P99Ms          float64  `json:"p99_ms"`
	Failures       []string `json:"failures"`
}

// startLoad opens all connections, then starts the calls. Every second connection has TLS 1.2.
func startLoad(s settings, address, root string) (*load, error) {
	l := &load{settings: s, address: address, root: root, stop: make(chan struct{})}
	for number := range s.connections {
		version := uint16(tls.VersionTLS13)
		if number%2 == 1 {
			version = tls.VersionTLS12
		}
		opened := &slot{version: version}
		if err := opened.replace(address, root, s.event); err != nil {
			return nil, fmt.Errorf("first connection %d: %w", number, err)
		}
		l.connects.Add(1)
		l.slots = append(l.slots, opened)
	}
	l.began = time.Now()
	for number, reconnecting := range l.slots {
		l.running.Add(1)
		go l.keepReconnecting(reconnecting, reconnectEvery*time.Duration(number)/time.Duration(len(l.slots)))
	}
	l.running.Add(1)
	go l.pace()
	return l, nil
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.failures) < failuresKept {
		l.failures = append(l.failures, fmt.Sprintf("after %.1f s: %v", time.Since(l.began).Seconds(), err))
	}
}

// keepReconnecting replaces the connection of a slot; the slots take turns.
func (l *load) keepReconnecting(s *slot, offset time.Duration) {
	defer l.running.Done()
	timer := time.NewTimer(offset)
	defer timer.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-timer.C:
		}
		if err := s.replace(l.address, l.root, l.event); err != nil {
			l.fail(fmt.Errorf("connection: %w", err))
		}
		l.connects.Add(1)
		timer.Reset(reconnectEvery)
	}
}

// pace starts each call when it is due, whether or not earlier ones have been answered.
func (l *load) pace() {
	defer l.running.Done()
	ticker := time.NewTicker(paceEvery)
	defer ticker.Stop()
	for number := 0; ; {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
		}
		due := int(time.Since(l.began).Seconds() * float64(l.rate))
		for ; number < due; number++ {
			at := l.began.Add(time.Duration(float64(number) / float64(l.rate) * float64(time.Second)))
			l.running.Add(1)
			go l.call(number, at)
		}
	}
}

func (l *load) call(number int, due time.Time) {
	defer l.running.Done()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := l.slots[number/2%len(l.slots)].use(func(conn *grpc.ClientConn) error {
		if number%2 == 0 {
			return check(ctx, conn, l.event)
		}
		err := commit(ctx, conn, l.event, fmt.Sprintf("tls-%d-%d", os.Getpid(), number))
		if err == nil {
			l.commits.Add(1)
		}
		return err
	})
	if err != nil {
		l.fail(err)
	}
	l.calls.Add(1)
	l.mutex.Lock()
	l.latencies = append(l.latencies, time.Since(due))
	l.mutex.Unlock()
}

// untilReconnected waits until each connection has been opened after this call: with the files as they are now.
func (l *load) untilReconnected() error {
	for _, s := range l.slots {
		begun := s.begun.Load()
		if !until(func() bool { return s.ended.Load() > begun }) {
			return errors.New("the clients did not reconnect")
		}
	}
	return nil
}

func until(holds func() bool) bool {
	for deadline := time.Now().Add(waitTimeout); time.Now().Before(deadline); {
		if holds() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// end waits for all calls, and closes the connections.
func (l *load) end() loadReport {
	close(l.stop)
	took := time.Since(l.began).Seconds()
	l.running.Wait()
	for _, s := range l.slots {
		s.close()
	}
	slices.Sort(l.latencies)
	quantile := func(q float64) float64 {
		if len(l.latencies) == 0 {
			return 0
		}
		return float64(l.latencies[int(q*float64(len(l.latencies)-1))].Microseconds()) / 1e3
	}
	return loadReport{
		Calls:          l.calls.Load(),
		Commits:        l.commits.Load(),
		Failed:         l.failed.Load(),
		Connects:       l.connects.Load(),
		Seconds:        took,
		CallsPerSecond: float64(l.calls.Load()) / took,
		P50Ms:          quantile(0.5),
		P99Ms:          quantile(0.99),
		Failures:       append([]string{}, l.failures...),
	}
}
