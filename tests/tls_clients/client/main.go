// A Go client over mutual TLS whose certificates, and those of the server, are replaced while it calls.
//
// It writes the files of both sides to a directory, prints `{"prepared":true}`, and reads one line with the addresses of the
// server that uses them. Then it makes calls while it rotates the certificates, and tries clients that must be refused. Each
// part prints one line of JSON. Started by run.py, which starts the server and compares the lines with what is expected.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// settings are the flags of the program.
type settings struct {
	directory   string
	event       string
	rate        int
	connections int
	duration    time.Duration
	rounds      int
}

// addresses of the server, from run.py.
type addresses struct {
	GRPC    string `json:"grpc"`
	Metrics string `json:"metrics"`
}

func main() {
	var s settings
	flag.StringVar(&s.directory, "directory", "", "new directory for certificates and keys")
	flag.StringVar(&s.event, "event", "", "event of the calls")
	flag.IntVar(&s.rate, "rate", 200, "calls per second, half of them commits")
	flag.IntVar(&s.connections, "connections", 8, "concurrent connections")
	flag.DurationVar(&s.duration, "duration", 10*time.Second, "least time under load")
	flag.IntVar(&s.rounds, "rounds", 1, "least number of complete rotations")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(s settings) error {
	files, err := prepare(s.directory)
	if err != nil {
		return err
	}
	if err := report(map[string]bool{"prepared": true}); err != nil {
		return err
	}
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("no addresses on standard input: %w", err)
	}
	var server addresses
	if err := json.Unmarshal(line, &server); err != nil {
		return fmt.Errorf("addresses %q: %w", line, err)
	}
	metrics := metricsPage{"http://" + server.Metrics + "/metrics"}
	rotated, err := rotateUnderLoad(s, server.GRPC, metrics, files)
	if err != nil {
		return err
	}
	if err := report(rotated); err != nil {
		return err
	}
	attempts, err := attemptRefused(server.GRPC, s.event, metrics, files)
	if err != nil {
		return err
	}
	return report(attempts)
}

// report prints a line of JSON.
func report(what any) error {
	return json.NewEncoder(os.Stdout).Encode(what)
}
