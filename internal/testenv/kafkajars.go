package testenv

// KafkaJars is the folder of Kafka's jars that `make setup` installed, its client
// among them; false when they could not be downloaded.
func KafkaJars() (string, bool) {
	jars, _, err := cached("kafka", "libs")
	return jars, err == nil
}
