package publisher

import (
	"crypto/sha256"
	"strings"
	"testing"
)

// exchange is the example of RFC 7677, section 3.
func exchange() (s *scram, challenge, answer, final string) {
	s = &scram{hash: sha256.New}
	_ = s.Begin("user", "pencil", "")
	s.nonce = "rOprNGfwEbeRWgbNEkqO"
	return s, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
}

func TestScram_AnswersTheExampleOfTheRFC(t *testing.T) {
	s, challenge, answer, final := exchange()
	if first, err := s.Step(""); err != nil || first != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("first message %q, %v", first, err)
	}
	if got, err := s.Step(challenge); err != nil || got != answer || s.Done() {
		t.Errorf("answer %q, %v; want %q", got, err, answer)
	}
	if _, err := s.Step(final); err != nil || !s.Done() {
		t.Errorf("the server's proof is refused: %v", err)
	}
}

func TestScram_RefusesAServerThatKnowsNothing(t *testing.T) {
	for _, tt := range []struct {
		name, challenge, final, want string
	}{
		{"another nonce", "r=else,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "", "makes no sense"},
		{"no salt", "r=rOprNGfwEbeRWgbNEkqO1,s=,i=4096", "", "makes no sense"},
		{"no iterations", "r=rOprNGfwEbeRWgbNEkqO1,s=W22Z,i=0", "", "makes no sense"},
		{"endless iterations", "r=rOprNGfwEbeRWgbNEkqO1,s=W22Z,i=2000000000", "", "makes no sense"},
		{"wrong proof", "", "v=AAAA", "does not know the password"},
		{"refusal", "", "e=unknown-user", "the server says unknown-user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, challenge, _, _ := exchange()
			_, err := s.Step("")
			if err != nil {
				t.Fatal(err)
			}
			if tt.challenge != "" {
				challenge = tt.challenge
			}
			if _, err = s.Step(challenge); tt.final != "" && err == nil {
				_, err = s.Step(tt.final)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err=%v, want %q", err, tt.want)
			}
		})
	}
}

func TestScram_NamesAreEscaped(t *testing.T) {
	s := &scram{hash: sha256.New}
	_ = s.Begin("a=b,c", "p", "")
	if first, _ := s.Step(""); !strings.HasPrefix(first, "n,,n=a=3Db=2Cc,r=") {
		t.Errorf("first message %q", first)
	}
}
