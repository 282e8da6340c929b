package testenv

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
)

// FakeKafka is a Kafka broker inside this process. It speaks the protocol to
// any client but replicates nothing; the demo runs on it, and the tests do
// where Apache Kafka cannot be installed.
type FakeKafka struct {
	// Cluster gives tests kfake's faults and controls.
	Cluster *kfake.Cluster
}

// StartFakeKafka starts one in-process broker. Of the options it heeds Dir
// (keep the data there; default: in memory), Port and Durable.
func StartFakeKafka(o Options) (*FakeKafka, error) {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID(clusterID), kfake.DefaultNumPartitions(1)}
	port := o.Port
	if port == 0 {
		var err error
		if port, err = freePort(context.Background()); err != nil {
			return nil, fmt.Errorf("start in-process kafka: %w", err)
		}
	}
	opts = append(opts, kfake.Ports(port))
	if o.Dir != "" {
		opts = append(opts, kfake.DataDir(o.Dir))
	}
	if o.Durable {
		opts = append(opts, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start in-process kafka: %w", err)
	}
	return &FakeKafka{Cluster: cluster}, nil
}

// Brokers returns the addresses to bootstrap from.
func (k *FakeKafka) Brokers() []string { return k.Cluster.ListenAddrs() }

// Close ends the broker and every connection to it.
func (k *FakeKafka) Close() { k.Cluster.Close() }
