package testenv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// clusterID is any 16 bytes in base64. Every private cluster may have the same
// one: they never meet.
const clusterID = "cm93dGlkZS10ZXN0LWVudg"

// KafkaServer is a private Apache Kafka: one KRaft node that is both
// controller and broker. Topics are not made by themselves.
type KafkaServer struct {
	*Server
	// Version is the release that `make setup` installed, "" under Options.Bin.
	Version string
}

// Brokers returns the addresses to bootstrap from.
func (s *KafkaServer) Brokers() []string { return []string{s.Addr} }

// StartKafka starts a private Apache Kafka. It returns when a client's metadata
// request is answered with a broker in it.
func StartKafka(ctx context.Context, o Options) (*KafkaServer, error) {
	jars, version := o.Bin, ""
	if jars == "" {
		var err error
		jars, version, err = cached("kafka", "libs")
		if errors.Is(err, os.ErrNotExist) {
			return nil, notInstalled("Apache Kafka")
		}
		if err != nil {
			return nil, err
		}
	}
	java, err := findJava()
	if err != nil {
		return nil, err
	}
	s, err := launch(ctx, "kafka", o, func(ctx context.Context, s *Server) error {
		s.spec.as = unprivileged(s.dataDir(), filepath.Join(jars, "x"))
		properties, err := writeKafkaProperties(ctx, o, s)
		if err != nil {
			return err
		}
		if err := formatKafka(ctx, java, jars, properties, s); err != nil {
			return err
		}
		s.spec.argv = append([]string{java}, javaArgs(o.Java, jars, "kafka.Kafka", properties)...)
		s.spec.ready = func(ctx context.Context) error { return probeKafka(ctx, s.Addr) }
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &KafkaServer{Server: s, Version: version}, nil
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java"), nil
	}
	java, ok := find("java")
	if !ok {
		return "", notInstalled("Java")
	}
	return java, nil
}

// quickJVM favors a quick start over peak speed: a test's broker lives for
// seconds and shares two cores.
var quickJVM = []string{"-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"}

func javaArgs(jvm []string, jars, class string, args ...string) []string {
	if jvm == nil {
		jvm = quickJVM
	}
	return slices.Concat(jvm, []string{
		"-Djava.awt.headless=true",
		"-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-cp", filepath.Join(jars, "*"), class,
	}, args)
}

func writeKafkaProperties(ctx context.Context, o Options, s *Server) (string, error) {
	if err := os.MkdirAll(s.dataDir(), 0o755); err != nil {
		return "", err
	}
	controller, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.Dir, "server.properties")
	lines := []string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + loopback(controller),
		"listeners=PLAINTEXT://" + s.Addr + ",CONTROLLER://" + loopback(controller),
		"advertised.listeners=PLAINTEXT://" + s.Addr,
		"controller.listener.names=CONTROLLER",
		"log.dirs=" + s.dataDir(),
		"auto.create.topics.enable=false",
		// One node: whatever is replicated is replicated once.
		"offsets.topic.replication.factor=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		// The first consumer group and the first transaction make these topics;
		// 50 partitions each would take seconds.
		"offsets.topic.num.partitions=1",
		"transaction.state.log.num.partitions=1",
		"share.coordinator.state.topic.num.partitions=1",
		"group.initial.rebalance.delay.ms=0",
		// A broker that was killed may not register again before its old
		// session has run out.
		"broker.session.timeout.ms=1000",
		"broker.heartbeat.interval.ms=200",
		"controller.quorum.election.timeout.ms=300",
		"num.network.threads=2",
		"num.io.threads=4",
		"log.cleaner.dedupe.buffer.size=8388608",
	}
	if o.Durable {
		lines = append(lines, "log.flush.interval.messages=1")
	}
	lines = append(lines, o.Flags...)
	return path, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// formatKafka prepares the log folder, once in its life. What the storage tool
// writes depends on nothing but the cluster id and the release, so it is kept as a
// template and the tool's JVM runs once per release.
func formatKafka(ctx context.Context, java, jars, properties string, s *Server) error {
	if _, err := os.Stat(filepath.Join(s.dataDir(), "meta.properties")); err == nil {
		return nil
	}
	release, err := programIdentity(jars)
	if err != nil {
		return err
	}
	return fromTemplate(s.dataDir(), "kafka", release+" "+clusterID, func(tmp string) error {
		conf := filepath.Join(filepath.Dir(tmp), "server.properties")
		b, err := os.ReadFile(properties)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(b), s.dataDir(), tmp)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.MkdirAll(tmp, 0o755); err != nil {
			return err
		}
		return runTool(ctx, credential{}, java,
			javaArgs(nil, jars, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", conf)...)
	})
}

// probeKafka asks for the cluster's metadata, without topics. A broker that the
// controller has not admitted yet answers with an empty list of brokers.
func probeKafka(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(metadataRequest()); err != nil {
		return err
	}
	var length uint32
	if err := binary.Read(conn, binary.BigEndian, &length); err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	const longest = 64 << 10 // one broker and no topic: under 100 bytes
	if length > longest {
		return fmt.Errorf("metadata of %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(conn, body); err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	return checkMetadata(body)
}

// metadataRequest is version 4 of Kafka's metadata request for no topic: the
// oldest encoding that says so and that Kafka 4 still speaks.
func metadataRequest() []byte {
	const (
		apiKey, apiVersion = 3, 4
		client             = "rowtide"
	)
	be := binary.BigEndian
	var b []byte
	b = be.AppendUint16(b, apiKey)
	b = be.AppendUint16(b, apiVersion)
	b = be.AppendUint32(b, 1) // correlation id
	b = be.AppendUint16(b, uint16(len(client)))
	b = append(b, client...)
	b = be.AppendUint32(b, 0) // topics: none
	b = append(b, 0)          // do not create any
	return append(be.AppendUint32(nil, uint32(len(b))), b...)
}

// checkMetadata wants at least one broker in an answer.
func checkMetadata(body []byte) error {
	const before = 4 + 4 // correlation id, throttle time
	if len(body) < before+4 {
		return fmt.Errorf("metadata of %d bytes is too short", len(body))
	}
	if n := binary.BigEndian.Uint32(body[before:]); n == 0 {
		return errors.New("no broker is registered yet")
	}
	return nil
}
