package testenv

// Options says how a server is started. The zero value is a small, fast server
// in a temporary folder.
type Options struct {
	// Dir keeps the server's data and log. It is made when absent; a folder
	// that already holds this kind of server's data is used as it is.
	//
	// Defaults to a new temporary folder, which Stop removes.
	Dir string
	// Bin is the server's program (for Kafka: the folder of its jars).
	//
	// Defaults to the one that `make setup` installed.
	Bin string
	// Port is the port on 127.0.0.1.
	//
	// Defaults to a free one.
	Port int
	// Durable makes every commit survive a power cut. Without it a commit
	// survives the server's own death (SIGKILL) only, which is all that a test
	// on one machine can see, and is several times faster.
	Durable bool
	// Flags are appended to the server's command line. For Kafka each is a
	// "key=value" line of its properties file.
	Flags []string

	// Java replaces the JVM flags of Kafka, which favor a quick start over peak
	// speed.
	Java []string
	// AppendOnly makes Redis keep its data across a restart. Durable implies it.
	AppendOnly bool
	// Password is what Redis's default user must present (requirepass).
	Password string
	// ACL holds Redis "user" lines without the word itself, for example
	// "node on >secret ~rt:* +get".
	ACL []string
	// ReplicaOf is the host:port of the Redis server to replicate.
	ReplicaOf string
}
