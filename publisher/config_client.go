package publisher

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// mechanisms are the logins that the daemon knows; PLAIN needs no client of ours.
var mechanisms = map[string]func() sarama.SCRAMClient{
	sarama.SASLTypePlaintext:   nil,
	sarama.SASLTypeSCRAMSHA256: func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA256} },
	sarama.SASLTypeSCRAMSHA512: func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA512} },
}

// Client is [ProducerConfig] with the config's TLS and login. The error names a
// certificate file that cannot be used.
func (c Config) Client() (*sarama.Config, error) {
	out := ProducerConfig()
	if c.TLS == "on" || c.TLS == "skip-verify" {
		out.Net.TLS.Enable = true
		// sarama verifies each broker by the name it was dialled by.
		out.Net.TLS.Config = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.TLS == "skip-verify"} //nolint:gosec // the operator's choice
	}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("kafka.tls_ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka.tls_ca: %s holds no certificate in PEM form", c.TLSCA)
		}
		out.Net.TLS.Config.RootCAs = pool
	}
	if s := c.SASL; s.Mechanism != "" {
		out.Net.SASL.Enable = true
		out.Net.SASL.Mechanism = sarama.SASLMechanism(s.Mechanism)
		out.Net.SASL.User, out.Net.SASL.Password = s.User, s.Password
		out.Net.SASL.SCRAMClientGeneratorFunc = mechanisms[s.Mechanism]
	}
	return out, nil
}
