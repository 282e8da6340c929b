package publisher_test

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/publisher"
)

func clientConfig(t *testing.T, change func(*publisher.Config)) (*sarama.Config, error) {
	t.Helper()
	c := publisher.Config{Brokers: []string{"k:9092"}, Prefix: "rowtide"}.WithDefaults()
	change(&c)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c.Client()
}

func TestClient_TLSAndLogin(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*publisher.Config)
		check  func(*sarama.Config) bool
	}{
		{"nothing", func(*publisher.Config) {}, func(c *sarama.Config) bool { return !c.Net.TLS.Enable && !c.Net.SASL.Enable }},
		{"tls", func(c *publisher.Config) { c.TLS = "on" }, func(c *sarama.Config) bool {
			return c.Net.TLS.Enable && !c.Net.TLS.Config.InsecureSkipVerify && c.Net.TLS.Config.RootCAs == nil
		}},
		{"skip-verify", func(c *publisher.Config) { c.TLS = "skip-verify" }, func(c *sarama.Config) bool {
			return c.Net.TLS.Enable && c.Net.TLS.Config.InsecureSkipVerify
		}},
		{"plain", func(c *publisher.Config) { c.SASL = publisher.SASL{Mechanism: "PLAIN", User: "u", Password: "p"} }, func(c *sarama.Config) bool {
			return c.Net.SASL.Enable && c.Net.SASL.Mechanism == sarama.SASLTypePlaintext && c.Net.SASL.User == "u" && c.Net.SASL.Password == "p"
		}},
		{"scram", func(c *publisher.Config) {
			c.SASL = publisher.SASL{Mechanism: "SCRAM-SHA-512", User: "u", Password: "p"}
		}, func(c *sarama.Config) bool {
			return c.Net.SASL.Enable && c.Net.SASL.Mechanism == sarama.SASLTypeSCRAMSHA512 && c.Net.SASL.SCRAMClientGeneratorFunc() != nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := clientConfig(t, tt.change)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			if !tt.check(c) || !c.Producer.Idempotent {
				t.Errorf("%+v", c.Net)
			}
		})
	}
}

func TestClient_Authorities(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := clientConfig(t, func(c *publisher.Config) { c.TLS, c.TLSCA = "on", path })
	if err != nil || c.Net.TLS.Config.RootCAs == nil {
		t.Fatalf("roots %v, %v", c, err)
	}
	for path, want := range map[string]string{"/nowhere/ca.pem": "kafka.tls_ca: open /nowhere/ca.pem", "config.go": "kafka.tls_ca: config.go holds no certificate"} {
		if _, err := clientConfig(t, func(c *publisher.Config) { c.TLS, c.TLSCA = "on", path }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("err=%v, want %q", err, want)
		}
	}
}
