//go:build integration

package testenv_test

import (
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/testenv"
)

func TestKafka_SurvivesKill(t *testing.T) {
	if testenv.Degraded("kafka") {
		t.Skip("Apache Kafka could not be installed on this machine")
	}
	s, err := testenv.StartKafka(testContext(t), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, s.Server)
	produceAndReadBack(t, s.Brokers(), func() {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFakeKafka_SurvivesCloseWithItsFolder(t *testing.T) {
	o := testenv.Options{Dir: t.TempDir()}
	k, err := testenv.StartFakeKafka(o)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(k.Brokers()[0])
	if err != nil {
		t.Fatal(err)
	}
	if o.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	produceAndReadBack(t, k.Brokers(), func() {
		k.Close()
		if k, err = testenv.StartFakeKafka(o); err != nil {
			t.Fatal(err)
		}
	})
	k.Close()
}

// produceAndReadBack writes a message, lets crash happen and reads it again.
func produceAndReadBack(t *testing.T, brokers []string, crash func()) {
	t.Helper()
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	conf.Producer.Return.Successes = true
	conf.Producer.RequiredAcks = sarama.WaitForAll
	// Closing a consumer waits for its last fetch.
	conf.Consumer.MaxWaitTime = 20 * time.Millisecond
	admin, err := sarama.NewClusterAdmin(brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.CreateTopic("t", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	if err := admin.Close(); err != nil {
		t.Fatal(err)
	}
	producer, err := sarama.NewSyncProducer(brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: "t", Value: sarama.StringEncoder("v")}); err != nil {
		t.Fatal(err)
	}
	if err := producer.Close(); err != nil {
		t.Fatal(err)
	}
	crash()
	consumer, err := sarama.NewConsumer(brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	part, err := consumer.ConsumePartition("t", 0, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-part.Messages():
		if string(m.Value) != "v" {
			t.Fatalf("value=%q, want v", m.Value)
		}
	case <-testContext(t).Done():
		t.Fatal("the message did not come back")
	}
	// Unknown topics stay unknown: nothing makes topics by itself.
	conf.Metadata.Retry.Max = 0
	client, err := sarama.NewClient(brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Partitions("never_made"); !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		t.Errorf("a topic that nobody made: %v, want unknown", err)
	}
}
