package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Files of a volume, with the names that cert-manager gives them.
const (
	certificateFile = "tls.crt"
	keyFile         = "tls.key"
	authoritiesFile = "ca.crt"
)

// volume is a directory as Kubernetes mounts a secret: its files are links through `..data`, itself a link that is replaced
// in one step. The version before is removed.
type volume struct {
	root     string
	versions int
	// What the current version holds.
	pair        pair
	authorities []byte
}

// newVolume makes a volume and its first version.
func newVolume(root string, first pair, authorities []byte) (*volume, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{certificateFile, keyFile, authoritiesFile} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(root, name)); err != nil {
			return nil, err
		}
	}
	made := &volume{root: root, pair: first, authorities: authorities}
	return made, made.replace()
}

func (v *volume) setPair(pair pair) error {
	v.pair = pair
	return v.replace()
}

func (v *volume) setAuthorities(authorities ...*authority) error {
	v.authorities = nil
	for _, one := range authorities {
		v.authorities = append(v.authorities, one.pem()...)
	}
	return v.replace()
}

// replace writes a new version, swaps the link and removes the previous version.
func (v *volume) replace() error {
	previous := v.version()
	v.versions++
	if err := os.Mkdir(v.version(), 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		certificateFile: v.pair.certificate,
		keyFile:         v.pair.key,
		authoritiesFile: v.authorities,
	} {
		if err := os.WriteFile(filepath.Join(v.version(), name), content, 0o600); err != nil {
			return err
		}
	}
	link := filepath.Join(v.root, "..data_tmp")
	if err := os.Symlink(filepath.Base(v.version()), link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(v.root, "..data")); err != nil {
		return err
	}
	return os.RemoveAll(previous)
}

func (v *volume) version() string {
	return filepath.Join(v.root, fmt.Sprintf("..version-%d", v.versions))
}

// readAttempts is how often a reader whose version is removed starts again with the next one.
const readAttempts = 5

// readPair loads the certificate and the key of one version of a volume.
func readPair(root string) (*tls.Certificate, error) {
	var failures []error
	for range readAttempts {
		version, err := filepath.EvalSymlinks(filepath.Join(root, "..data"))
		if err == nil {
			var loaded tls.Certificate
			loaded, err = tls.LoadX509KeyPair(filepath.Join(version, certificateFile), filepath.Join(version, keyFile))
			if err == nil {
				return &loaded, nil
			}
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// readAuthorities loads the authorities of a volume.
func readAuthorities(root string) (*x509.CertPool, error) {
	var failures []error
	for range readAttempts {
		content, err := os.ReadFile(filepath.Join(root, authoritiesFile))
		if err == nil {
			pool := x509.NewCertPool()
			if pool.AppendCertsFromPEM(content) {
				return pool, nil
			}
			err = fmt.Errorf("%s has no certificate", root)
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}
