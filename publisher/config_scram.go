package publisher

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// scram is the client's side of SCRAM (RFC 5802, RFC 7677) without channel
// binding, which is what Kafka speaks. Passwords outside of ASCII are sent as
// they are, not normalized.
type scram struct {
	hash func() hash.Hash

	user, password string
	nonce          string
	first          string // the client's first message without its header
	proof          []byte // of the server, expected in its last message
	step           int
}

const (
	scramHeader = "n,," // no channel binding, no other identity
	// maxIterations keeps a foreign server from keeping us busy for minutes.
	maxIterations = 10_000_000
)

// Begin implements sarama.SCRAMClient.
func (s *scram) Begin(user, password, _ string) error {
	*s = scram{hash: s.hash, user: user, password: password, nonce: rand.Text()}
	return nil
}

// Step implements sarama.SCRAMClient.
func (s *scram) Step(challenge string) (string, error) {
	s.step++
	switch s.step {
	case 1:
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
		s.first = "n=" + name + ",r=" + s.nonce
		return scramHeader + s.first, nil
	case 2:
		return s.answer(challenge)
	case 3:
		return "", s.verify(challenge)
	}
	return "", errors.New("scram: the server goes on after its last message")
}

// Done implements sarama.SCRAMClient.
func (s *scram) Done() bool { return s.step >= 3 }

// answer proves that we know the password.
func (s *scram) answer(challenge string) (string, error) {
	f := fields(challenge)
	salt, err := base64.StdEncoding.DecodeString(f['s'])
	n, bad := strconv.Atoi(f['i'])
	if err != nil || bad != nil || len(salt) == 0 || n < 1 || n > maxIterations || !strings.HasPrefix(f['r'], s.nonce) || f['r'] == s.nonce {
		return "", fmt.Errorf("scram: the server's challenge %q makes no sense", challenge)
	}
	key, err := pbkdf2.Key(s.hash, s.password, salt, n, s.hash().Size())
	if err != nil {
		return "", fmt.Errorf("scram: %w", err)
	}
	last := "c=" + base64.StdEncoding.EncodeToString([]byte(scramHeader)) + ",r=" + f['r']
	message := s.first + "," + challenge + "," + last
	client := s.mac(key, "Client Key")
	stored := s.hash()
	stored.Write(client)
	proof := s.mac(stored.Sum(nil), message)
	subtle.XORBytes(proof, proof, client)
	s.proof = s.mac(s.mac(key, "Server Key"), message)
	return last + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// verify makes sure that the server knows the password too.
func (s *scram) verify(final string) error {
	f := fields(final)
	if e := f['e']; e != "" {
		return fmt.Errorf("scram: the server says %s", e)
	}
	got, err := base64.StdEncoding.DecodeString(f['v'])
	if err != nil || !hmac.Equal(got, s.proof) {
		return errors.New("scram: the server does not know the password")
	}
	return nil
}

func (s *scram) mac(key []byte, text string) []byte {
	h := hmac.New(s.hash, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// fields are the values of a message such as "r=…,s=…,i=4096" by their letter.
func fields(message string) map[byte]string {
	out := map[byte]string{}
	for part := range strings.SplitSeq(message, ",") {
		if len(part) >= 2 && part[1] == '=' {
			out[part[0]] = part[2:]
		}
	}
	return out
}
