package publisher

import "strings"

// clusterSlots is fixed by Redis Cluster.
const clusterSlots = 16384

// slotOf is the slot of a key in a Redis Cluster: CRC-16/XMODEM of its hash tag,
// or of the whole key.
func slotOf(key string) uint16 {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return crc % clusterSlots
}

var crcTable = func() (t [256]uint16) {
	const poly = 0x1021
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= poly
			}
		}
		t[i] = crc
	}
	return t
}()
