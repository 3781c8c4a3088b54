package main

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"
)

// tlsFiles are the certificates of both sides, and the authorities that issue them now.
type tlsFiles struct {
	server, client                 *volume
	serverAuthority                *authority
	clientAuthority, formerClients *authority
}

// rotationReport is what happened under load.
type rotationReport struct {
	loadReport
	Rounds int `json:"rounds"`
	// Handshakes of the server by result, and reloads of its files.
	Handshakes map[string]int `json:"handshakes"`
	Reloads    map[string]int `json:"reloads"`
}

// prepare makes the first certificates.
func prepare(directory string) (*tlsFiles, error) {
	servers, err := newAuthority("servers")
	if err != nil {
		return nil, err
	}
	clients, err := newAuthority("clients")
	if err != nil {
		return nil, err
	}
	of, err := servers.issue(valid(serverName, x509.ExtKeyUsageServerAuth))
	if err != nil {
		return nil, err
	}
	server, err := newVolume(filepath.Join(directory, "server"), of, clients.pem())
	if err != nil {
		return nil, err
	}
	if of, err = clients.issue(valid(clientName, x509.ExtKeyUsageClientAuth)); err != nil {
		return nil, err
	}
	client, err := newVolume(filepath.Join(directory, "client"), of, servers.pem())
	return &tlsFiles{server: server, client: client, serverAuthority: servers, clientAuthority: clients}, err
}

// rotateUnderLoad makes calls while both sides change their certificates and authorities.
func rotateUnderLoad(s settings, address string, metrics metricsPage, files *tlsFiles) (*rotationReport, error) {
	handshakes, err := metrics.counts(handshakesMetric)
	if err != nil {
		return nil, err
	}
	running, err := startLoad(s, address, files.client.root)
	if err != nil {
		return nil, err
	}
	rounds := 0
	for ; rounds < s.rounds || time.Since(running.began) < s.duration; rounds++ {
		if err := files.rotate(running, metrics, rounds); err != nil {
			return nil, fmt.Errorf("round %d: %w", rounds, err)
		}
	}
	report := &rotationReport{loadReport: running.end(), Rounds: rounds}
	after, err := metrics.counts(handshakesMetric)
	if err != nil {
		return nil, err
	}
	report.Handshakes = difference(handshakes, after)
	report.Reloads, err = metrics.counts(reloadsMetric)
	return report, err
}

// rotate replaces both authorities and all certificates, as an operator does it without an interruption: each side first
// trusts the old and the new authority, then both get certificates of the new one, then the old one is removed.
func (f *tlsFiles) rotate(running *load, metrics metricsPage, round int) error {
	servers, err := newAuthority("servers")
	if err != nil {
		return err
	}
	clients, err := newAuthority("clients")
	if err != nil {
		return err
	}
	spec := valid(serverName, x509.ExtKeyUsageServerAuth)
	spec.rsa = round%2 == 1
	ofServer, err := servers.issue(spec)
	if err != nil {
		return err
	}
	ofClient, err := clients.issue(valid(clientName, x509.ExtKeyUsageClientAuth))
	if err != nil {
		return err
	}
	steps := []struct {
		server, client func() error
	}{
		{
			func() error { return f.server.setAuthorities(f.clientAuthority, clients) },
			func() error { return f.client.setAuthorities(f.serverAuthority, servers) },
		},
		{
			func() error { return f.server.setPair(ofServer) },
			func() error { return f.client.setPair(ofClient) },
		},
		{
			func() error { return f.server.setAuthorities(clients) },
			func() error { return f.client.setAuthorities(servers) },
		},
	}
	for number, step := range steps {
		if err := untilReloaded(metrics, step.server); err != nil {
			return fmt.Errorf("step %d: %w", number, err)
		}
		if err := step.client(); err != nil {
			return err
		}
		if err := running.untilReconnected(); err != nil {
			return fmt.Errorf("step %d: %w", number, err)
		}
	}
	f.formerClients = f.clientAuthority
	f.serverAuthority, f.clientAuthority = servers, clients
	return nil
}

// untilReloaded changes the files of the server, and waits until it uses them.
func untilReloaded(metrics metricsPage, change func() error) error {
	before, err := metrics.counts(reloadsMetric)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	var failure error
	reloaded := until(func() bool {
		after, err := metrics.counts(reloadsMetric)
		failure = err
		return err == nil && after["ok"] > before["ok"]
	})
	if !reloaded {
		return fmt.Errorf("the server did not reload its files: %v", failure)
	}
	return nil
}
