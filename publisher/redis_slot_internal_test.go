package publisher

import "testing"

// Vectors from the cluster specification's own example and CLUSTER KEYSLOT;
// TestRedisCluster_... compares more of them with a server.
func TestSlotOf_HashesTheTag(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789": 0x31C3, "foo": 12182, "{foo}:v": 12182, "a{foo}b": 12182, "": 0,
		"{}foo": slotOf("{}foo"), "{foo": slotOf("{{foo}:v"),
	} {
		if got := slotOf(key); got != want {
			t.Errorf("slot of %q is %d, want %d", key, got, want)
		}
	}
	if slotOf("{}foo") == slotOf("foo") {
		t.Error("an empty tag counts")
	}
}
