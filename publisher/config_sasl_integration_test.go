//go:build integration

package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A real broker that also listens with SASL and keeps two accounts: one in its
// settings (PLAIN), one that is made here (SCRAM).
func TestClient_LogsInAtARealBroker(t *testing.T) {
	if testenv.Degraded("kafka") {
		t.Skip("Apache Kafka could not be installed on this machine")
	}
	const jaas = "org.apache.kafka.common.security."
	plain, login, controller := freePort(t), freePort(t), freePort(t)
	const local = "127.0.0.1:"
	server, err := testenv.StartKafka(testContext(t), testenv.Options{Port: plain, Flags: []string{
		// The last of two lines with one key counts.
		fmt.Sprintf("listeners=PLAINTEXT://%s%d,SASL://%s%d,CONTROLLER://%s%d", local, plain, local, login, local, controller),
		fmt.Sprintf("advertised.listeners=PLAINTEXT://%s%d,SASL://%s%d", local, plain, local, login),
		fmt.Sprintf("controller.quorum.voters=1@%s%d", local, controller),
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
		"inter.broker.listener.name=PLAINTEXT",
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.sasl.plain.sasl.jaas.config=" + jaas + `plain.PlainLoginModule required user_pat="plain secret";`,
		"listener.name.sasl.scram-sha-256.sasl.jaas.config=" + jaas + "scram.ScramLoginModule required;",
		"listener.name.sasl.scram-sha-512.sasl.jaas.config=" + jaas + "scram.ScramLoginModule required;",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	admin, err := sarama.NewClusterAdmin(server.Brokers(), publisher.ProducerConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for _, m := range []sarama.ScramMechanismType{sarama.SCRAM_MECHANISM_SHA_256, sarama.SCRAM_MECHANISM_SHA_512} {
		if _, err := admin.UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{{
			Name: "sam", Mechanism: m, Iterations: 4096, Salt: []byte("salt of sixteen!"), Password: []byte("scram, =secret"),
		}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		sasl publisher.SASL
		ok   bool
	}{
		{"PLAIN", publisher.SASL{Mechanism: "PLAIN", User: "pat", Password: "plain secret"}, true},
		{"PLAIN, wrong password", publisher.SASL{Mechanism: "PLAIN", User: "pat", Password: "x"}, false},
		{"SCRAM-SHA-256", publisher.SASL{Mechanism: "SCRAM-SHA-256", User: "sam", Password: "scram, =secret"}, true},
		{"SCRAM-SHA-512", publisher.SASL{Mechanism: "SCRAM-SHA-512", User: "sam", Password: "scram, =secret"}, true},
		{"SCRAM, wrong password", publisher.SASL{Mechanism: "SCRAM-SHA-512", User: "sam", Password: "x"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf, err := publisher.Config{TLS: "off", SASL: tt.sasl}.Client()
			if err != nil {
				t.Fatal(err)
			}
			conf.Metadata.Retry.Max = 0
			client, err := sarama.NewClient([]string{fmt.Sprint(local, login)}, conf)
			if err == nil {
				client.Close()
			}
			if (err == nil) != tt.ok || !tt.ok && !errors.Is(err, sarama.ErrSASLAuthenticationFailed) {
				t.Errorf("err=%v, want success: %t", err, tt.ok)
			}
		})
	}
}
