package main

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// callTimeout is far above the latency of a call on a busy machine: a call that takes as long has failed.
const callTimeout = 15 * time.Second

// dial makes a connection with the current authorities of the volume, and with a certificate that is read at each handshake,
// also at those that gRPC makes by itself after a GOAWAY.
func dial(address, root string, version uint16) (*grpc.ClientConn, error) {
	authorities, err := readAuthorities(root)
	if err != nil {
		return nil, err
	}
	return dialWith(address, &tls.Config{
		ServerName: serverName,
		RootCAs:    authorities,
		MinVersion: version,
		MaxVersion: version,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return readPair(root)
		},
	})
}

func dialWith(address string, config *tls.Config) (*grpc.ClientConn, error) {
	transport := grpc.WithTransportCredentials(credentials.NewTLS(config))
	return grpc.NewClient("passthrough:///"+address, transport)
}

// connection counts its calls, so that it is closed after the last of them.
type connection struct {
	conn     *grpc.ClientConn
	inFlight sync.WaitGroup
}

// slot is a place for a connection that is replaced again and again.
type slot struct {
	mutex   sync.RWMutex
	current *connection
	version uint16
	// Numbers of the replacements that have begun, and have ended.
	begun, ended atomic.Int64
}

// use makes a call on the current connection.
func (s *slot) use(call func(*grpc.ClientConn) error) error {
	s.mutex.RLock()
	current := s.current
	current.inFlight.Add(1)
	s.mutex.RUnlock()
	defer current.inFlight.Done()
	return call(current.conn)
}

// replace opens a connection, makes a first call on it, and closes the previous one after its calls.
func (s *slot) replace(address, root, event string) error {
	number := s.begun.Add(1)
	conn, err := dial(address, root, s.version)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	// Without WaitForReady: a handshake that fails is an error, with its reason.
	if err := check(ctx, conn, event); err != nil {
		conn.Close()
		return err
	}
	s.mutex.Lock()
	previous := s.current
	s.current = &connection{conn: conn}
	s.mutex.Unlock()
	s.ended.Store(number)
	if previous != nil {
		previous.inFlight.Wait()
		previous.conn.Close()
	}
	return nil
}

func (s *slot) close() {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if s.current != nil {
		s.current.inFlight.Wait()
		s.current.conn.Close()
	}
}
