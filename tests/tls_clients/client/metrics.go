package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	handshakesMetric = `inventory_tls_handshakes_total{port="grpc",result="`
	reloadsMetric    = `inventory_tls_reloads_total{port="grpc",result="`
)

// metricsPage is the address of a server's metrics.
type metricsPage struct{ url string }

// counts returns the values of a metric by the label that its prefix ends with.
func (m metricsPage) counts(prefix string) (map[string]int, error) {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(m.url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for line := range strings.Lines(string(page)) {
		rest, is := strings.CutPrefix(line, prefix)
		if !is {
			continue
		}
		label, value, is := strings.Cut(strings.TrimSpace(rest), `"} `)
		number, err := strconv.ParseFloat(value, 64)
		if !is || err != nil {
			return nil, fmt.Errorf("metric %q", line)
		}
		found[label] = int(number)
	}
	return found, nil
}

// difference returns what has changed from one set of counts to the other.
func difference(before, after map[string]int) map[string]int {
	changed := map[string]int{}
	for label, count := range after {
		if count != before[label] {
			changed[label] = count - before[label]
		}
	}
	return changed
}
