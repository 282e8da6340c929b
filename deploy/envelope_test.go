package deploy_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
)

// checkVectors runs the reader of docs/envelope.md over testdata/wire.
const checkVectors = `
def payload(text):
    return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()

n = 0
for v in json.load(open("testdata/wire/envelopes.json")):
    k, raw = v["key"], bytes.fromhex(v["hex"])
    assert key_hash(k["module"], k["id"]) == int(v["key_check"], 16), v["name"]
    version, got = envelope(k["module"], k["id"], raw)
    assert version == int(v["version"], 16), v["name"]
    assert got == (None if v["empty"] else payload(v["payload"])), v["name"]
    for i in range(len(raw)):
        broken = raw[:i] + bytes([raw[i] ^ 8]) + raw[i + 1:]
        try:
            envelope(k["module"], k["id"], broken)
            raise SystemExit("byte %d of %s flipped and nobody noticed" % (i, v["name"]))
        except ValueError:
            pass
    n += 1
for v in json.load(open("testdata/wire/records.json")):
    producer, seq, mark, behind, items = record(bytes.fromhex(v["hex"]))
    assert round(behind * 1000) == v["behind_ms"], v["name"]
    assert [producer, seq, mark] == [int(v[f], 16) for f in ("producer", "sequence", "watermark")], v["name"]
    want = [(i["key"]["module"], i["key"]["version"], i["key"]["id"], int(i["version"], 16), i["empty"],
             None if i["value"] is None else payload(i["value"])) for i in v["items"]]
    assert items == want, v["name"]
    n += 1
for v in json.load(open("testdata/wire/partitions.json")):
    h = key_hash(v["key"]["module"], v["key"]["id"])
    assert h == int(v["hash"], 16) and (h ^ h >> 32) % 12 == v["partition_of_12"], v
    n += 1

def sequence(*records):
    told, doubts = [], []
    hear = follower(lambda *item: told.append(item), lambda: doubts.append(1))
    for r in records:
        hear(r)
    return len(told), len(doubts)

def rec(run, base, seq, items=1):
    head = struct.pack(">BBHQQQQQI", 0xB7, 1, 0, run << 40 | base, seq, 0, 0, 0, items)
    return head + items * (struct.pack(">BHQ", 0, 1, 7) + b"\x01m\x011")

for records, want in [ # what was told, doubts: the first record is one
    ([rec(1, 0, 1), rec(1, 0, 2), rec(1, 0, 2, 0), rec(1, 0, 3)], (3, 1)),
    ([rec(1, 0, 41), rec(1, 0, 43)], (2, 2)),
    ([rec(1, 0, 1), rec(1, 0, 2, 0)], (1, 2)),
    ([rec(1, 0, 2), rec(2, 2, 3), rec(2, 2, 4)], (3, 1)),
    ([rec(1, 0, 1), rec(2, 2, 3)], (2, 2)),
    ([rec(1, 0, 2), rec(2, 2, 4)], (2, 2)),
    ([rec(1, 0, 2), rec(2, 2, 3, 0)], (1, 2)),
    ([rec(1, 0, 5), rec(2, 0, 1)], (2, 1)),
    ([rec(1, 0, 5), rec(2, 5, 6), rec(1, 0, 6), rec(2, 5, 7)], (4, 1)),
    ([b"?", rec(1, 0, 1)[:-1]], (0, 2)),
]:
    assert sequence(*records) == want, (sequence(*records), want)
print(n)
`

func TestEnvelopeDoc_PythonReadsTheGoldenVectors(t *testing.T) {
	python := testenv.Python(t)
	m := regexp.MustCompile("(?s)```python\n(.*?)```").FindAllStringSubmatch(read(t, "docs/envelope.md"), -1)
	if len(m) != 2 {
		t.Fatalf("docs/envelope.md has %d parts in Python, want the reader and the consumer", len(m))
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", m[0][1]+m[1][1]+checkVectors)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.TrimSpace(string(out)) == "0" {
		t.Error("no vectors were read")
	}
}
