package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"

	"google.golang.org/grpc/status"
)

// attempt is a client that must be refused, or must refuse, and what became of it.
type attempt struct {
	Client  string `json:"client"`
	Version string `json:"version"`
	// Status and message as the client sees them.
	Code    string `json:"code"`
	Message string `json:"message"`
	// What the server counted.
	Handshakes map[string]int `json:"handshakes"`
}

// refusedClient is a client by what is wrong with it.
type refusedClient struct {
	name   string
	config func(*tls.Config) error
}

// present makes the client send this certificate whatever authorities the server asks for.
func present(by *authority, spec leaf) func(*tls.Config) error {
	return func(config *tls.Config) error {
		issued, err := by.issue(spec)
		if err != nil {
			return err
		}
		loaded, err := tls.X509KeyPair(issued.certificate, issued.key)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &loaded, nil
		}
		return err
	}
}

func refusedClients(files *tlsFiles, others *authority) []refusedClient {
	usual := func() leaf { return valid(clientName, x509.ExtKeyUsageClientAuth) }
	expired, early := usual(), usual()
	expired.notAfter = time.Now().Add(-time.Minute)
	early.notBefore = time.Now().Add(time.Hour)
	of := files.clientAuthority
	return []refusedClient{
		{"expired", present(of, expired)},
		{"not yet valid", present(of, early)},
		{"of another authority", present(others, usual())},
		{"of the authority before the rotation", present(files.formerClients, usual())},
		{"with another name", present(of, valid(forbiddenName, x509.ExtKeyUsageClientAuth))},
		{"with a certificate for servers", present(of, valid(clientName, x509.ExtKeyUsageServerAuth))},
		{"without a certificate", func(*tls.Config) error { return nil }},
		{"of another authority, chosen by Go", func(config *tls.Config) error {
			issued, err := others.issue(usual())
			if err != nil {
				return err
			}
			loaded, err := tls.X509KeyPair(issued.certificate, issued.key)
			config.Certificates = []tls.Certificate{loaded}
			return err
		}},
		{"that trusts another authority", func(config *tls.Config) error {
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AddCert(others.certificate)
			return present(of, usual())(config)
		}},
		{"that expects another server", func(config *tls.Config) error {
			config.ServerName = "other.sale.svc"
			return present(of, usual())(config)
		}},
		{"correct", present(of, usual())},
	}
}

// attemptRefused makes one call with each client, over both versions of TLS.
func attemptRefused(address, event string, metrics metricsPage, files *tlsFiles) ([]attempt, error) {
	others, err := newAuthority("others")
	if err != nil {
		return nil, err
	}
	roots, err := readAuthorities(files.client.root)
	if err != nil {
		return nil, err
	}
	var attempts []attempt
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, client := range refusedClients(files, others) {
			config := &tls.Config{ServerName: serverName, RootCAs: roots, MinVersion: version, MaxVersion: version}
			if err := client.config(config); err != nil {
				return nil, err
			}
			made, err := attemptOnce(address, event, metrics, config)
			if err != nil {
				return nil, err
			}
			made.Client, made.Version = client.name, tls.VersionName(version)
			attempts = append(attempts, *made)
		}
	}
	return attempts, nil
}

func attemptOnce(address, event string, metrics metricsPage, config *tls.Config) (*attempt, error) {
	before, err := metrics.counts(handshakesMetric)
	if err != nil {
		return nil, err
	}
	conn, err := dialWith(address, config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	called := status.Convert(check(ctx, conn, event))
	conn.Close()
	made := &attempt{Code: called.Code().String(), Message: called.Message()}
	// The server counts a handshake that the client refused when it reads the alert.
	until(func() bool {
		var after map[string]int
		after, err = metrics.counts(handshakesMetric)
		made.Handshakes = difference(before, after)
		return err != nil || len(made.Handshakes) > 0
	})
	return made, err
}
