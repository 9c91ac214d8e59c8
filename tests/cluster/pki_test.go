package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs the cluster's certificates.
type authority struct {
	directory string
	key       *ecdsa.PrivateKey
	cert      *x509.Certificate
	serial    int64
}

func newAuthority(t *testing.T, directory string) *authority {
	a := &authority{directory: directory}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "cluster"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.issue(t, "ca", template)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.directory, name) }

// issue writes NAME.crt and NAME.key.
func (a *authority) issue(t *testing.T, name string, template *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	if a.cert == nil {
		a.key, a.cert = key, template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	check(t, err)
	if template == a.cert {
		a.cert, err = x509.ParseCertificate(der)
		check(t, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	a.write(t, name+".crt", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", private)
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	check(t, os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// trust has the node's programs trust it, as an administrator does it for a registry of the house.
func (a *authority) trust(t *testing.T) {
	t.Helper()
	certificate, err := os.ReadFile(a.path("ca.crt"))
	check(t, err)
	appendTo(t, "/etc/ssl/certs/ca-certificates.crt", string(certificate))
}

// server issues the certificate of what listens under these names.
func (a *authority) server(t *testing.T, name string, names []string, addresses ...net.IP) {
	t.Helper()
	a.issue(t, name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    names,
		IPAddresses: addresses,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// client issues the certificate of a user, and gives the path of a kubeconfig with it.
func (a *authority) client(t *testing.T, name, user string, groups ...string) string {
	t.Helper()
	a.issue(t, name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	data := func(name string) string {
		content, err := os.ReadFile(a.path(name))
		check(t, err)
		return base64.StdEncoding.EncodeToString(content)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: cluster
contexts: [{name: cluster, context: {cluster: cluster, user: user}}]
clusters: [{name: cluster, cluster: {server: "https://%s:6443", certificate-authority-data: %s}}]
users: [{name: user, user: {client-certificate-data: %s, client-key-data: %s}}]
`, nodeAddress, data("ca.crt"), data(name+".crt"), data(name+".key"))
	config := a.path(name + ".conf")
	check(t, os.WriteFile(config, []byte(text), 0o600))
	return config
}
