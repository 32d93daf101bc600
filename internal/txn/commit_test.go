package txn

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
)

var update = flag.Bool("update", false, "write what the tests of testdata print")

// TestCommit runs testdata/commit.txt: each case is a script of writes and of answers,
// and, after ----, the requests that were sent and what became of the transaction.
func TestCommit(t *testing.T) {
	const file = "testdata/commit.txt"
	cases := readCases(t, file)
	for i := range cases {
		t.Run(cases[i].name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := runScript(t, cases[i].script)
				if *update {
					cases[i].want = got
				} else if got != cases[i].want {
					t.Errorf("got\n%swant\n%s", got, cases[i].want)
				}
			})
		})
	}
	if *update {
		writeCases(t, file, cases)
	}
}

type testCase struct {
	name   string
	script []string
	want   string
}

func readCases(t *testing.T, file string) []testCase {
	data, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	var cases []testCase
	expected := false
	for in := bufio.NewScanner(data); in.Scan(); {
		line := in.Text()
		name, isCase := strings.CutPrefix(line, "== ")
		switch {
		case isCase:
			cases = append(cases, testCase{name: name})
			expected = false
		case line == "----":
			expected = true
		case line == "":
		case expected:
			cases[len(cases)-1].want += line + "\n"
		default:
			cases[len(cases)-1].script = append(cases[len(cases)-1].script, line)
		}
	}
	return cases
}

func writeCases(t *testing.T, file string, cases []testCase) {
	var b strings.Builder
	for i, c := range cases {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "== %s\n%s\n----\n%s", c.name, strings.Join(c.script, "\n"), c.want)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// runScript runs one case. The transaction starts at 100.
func runScript(t *testing.T, script []string) string {
	f := &fake{now: 100}
	e, owed := newEngine(t, f)
	tx := e.Begin(at(100), 0, Options{Assertions: kvrpcpb.AssertionLevel_Fast})
	o := CommitOptions{Mode: TwoPhaseOnly}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var out strings.Builder
	for _, line := range script {
		w := strings.Fields(line)
		var err error
		switch w[0] {
		case "split":
			f.splits = w[1:]
		case "put":
			err = tx.Put([]byte(w[1]), []byte("value"), claimOf(w[2:]))
		case "big":
			n, _ := strconv.Atoi(w[2])
			err = tx.Put([]byte(w[1]), make([]byte, n), NoClaim)
		case "insert":
			err = tx.Put([]byte(w[1]), []byte("value"), MustBeAbsent)
		case "delete":
			err = tx.Delete([]byte(w[1]), claimOf(w[2:]))
		case "absent":
			err = tx.CheckAbsent([]byte(w[1]))
		case "lock":
			_, err = tx.Lock(ctx, "Lock", [][]byte{[]byte(w[1])}, LockOptions{})
		case "mode":
			o.Mode = map[string]Mode{"auto": Auto, "async": AsyncAtMost, "two": TwoPhaseOnly}[w[1]]
		case "causal":
			o.Causal = true
		case "after": // timestamp, wait
			n, _ := strconv.Atoi(w[1])
			o.After = at(uint64(n))
			o.Wait, _ = time.ParseDuration(w[2])
		case "puts": // number of keys
			n, _ := strconv.Atoi(w[1])
			for i := range n {
				err = errors.Join(err, tx.Put(fmt.Appendf(nil, "%0*d", len(w[2]), i), []byte("value"), NoClaim))
			}
		case "limits": // how much of a transaction is told: the first request alone
			f.brief = true
		case "answer":
			f.answers = append(f.answers, parseAnswer(t, w[1:]))
		case "tso":
			f.tsoErr = errors.New("no timestamps")
		case "safe":
			n, _ := strconv.Atoi(w[1])
			f.safe = at(uint64(n))
		case "cancel":
			d, _ := time.ParseDuration(w[1])
			time.AfterFunc(d, func() { cancel(errors.New("cancelled")) })
		case "deadline":
			d, _ := time.ParseDuration(w[1])
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, d)
			defer stop()
		case "age":
			d, _ := time.ParseDuration(w[1])
			tx.age = d
		case "commit":
			err = tx.Commit(ctx, "Commit", o)
			if err == nil {
				p, fell := tx.Protocol()
				fmt.Fprintf(&out, "committed at %d%s%s\n", tx.CommitTS()>>18, [...]string{OnePhase: " in one phase", Async: " asynchronously", TwoPhase: ""}[p],
					map[bool]string{true: ", another way at first"}[fell])
			}
			if waited := owed.Wait(t.Context()); waited != nil {
				t.Fatal(waited)
			}
		default:
			t.Fatalf("what is %q?", line)
		}
		if err != nil {
			out.WriteString(outcome(err) + "\n")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.answers) > 0 {
		out.WriteString("answers are left\n")
	}
	return strings.Join(append(f.log, ""), "\n") + out.String()
}

// outcome is an error as a line.
func outcome(err error) string {
	var (
		unknown     *Undetermined
		unavailable *router.Unavailable
		canceled    *router.Canceled
	)
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("unknown: primary %s of %d", unknown.Primary, unknown.StartTS>>18)
	case errors.As(err, &unavailable):
		return "unavailable, the last: " + unavailable.Attempts[len(unavailable.Attempts)-1].Reason.String()
	case errors.As(err, &canceled):
		return "cancelled: " + canceled.Causes[0].Error()
	}
	if c, ok := err.(*Conflict); ok {
		return fmt.Sprintf("conflict on %s with %d", c.Key, c.ConflictTS>>18)
	}
	if a, ok := err.(*Aborted); ok {
		return "aborted: " + a.Why
	}
	if a, ok := err.(*Asserted); ok {
		return fmt.Sprintf("%s is not as asserted, absent %v", a.Key, a.Absent)
	}
	if x, ok := err.(*Exists); ok {
		return fmt.Sprintf("%s exists", x.Key)
	}
	return "error: " + err.Error()
}

func claimOf(w []string) Claim {
	if len(w) == 0 {
		return NoClaim
	}
	return map[string]Claim{"present": AssertExists, "absent": AssertAbsent}[w[0]]
}

// parseAnswer reads NAME[@region] WHAT ARGS....
func parseAnswer(t *testing.T, w []string) scripted {
	name, id, _ := strings.Cut(w[0], "@")
	s := scripted{name: name}
	s.region, _ = strconv.ParseUint(id, 10, 64)
	num := func(i int) uint64 {
		n, err := strconv.ParseUint(w[i], 10, 64)
		if err != nil {
			t.Fatal(w, err)
		}
		return n
	}
	switch w[1] {
	case "ok":
		s.do = usual
	case "slow":
		s.do = usual
		s.delay, _ = time.ParseDuration(w[2])
	case "hang":
		s.do, s.delay = usual, 1000*time.Hour
	case "lost":
		s.do = lost
	case "unsent":
		s.do = unsent
	case "split":
		s.do = split(w[2])
	case "locked": // key primary start ttl
		s.do = keyErr(&kvrpcpb.KeyError{Locked: lockInfo(w[2], w[3], num(4), num(5))})
	case "conflict": // key start
		s.do = keyErr(&kvrpcpb.KeyError{Conflict: &kvrpcpb.WriteConflict{Key: []byte(w[2]), StartTs: at(100), ConflictTs: at(num(3))}, Retryable: "words"})
	case "rolledback":
		s.do = keyErr(&kvrpcpb.KeyError{Conflict: &kvrpcpb.WriteConflict{Reason: kvrpcpb.WriteConflict_SelfRolledBack}, Retryable: "words"})
	case "exists":
		s.do = keyErr(&kvrpcpb.KeyError{AlreadyExist: &kvrpcpb.AlreadyExist{Key: []byte(w[2])}})
	case "gone":
		s.do = keyErr(&kvrpcpb.KeyError{TxnLockNotFound: &kvrpcpb.TxnLockNotFound{}, Retryable: "words"})
	case "asserted": // key
		s.do = keyErr(&kvrpcpb.KeyError{AssertionFailed: &kvrpcpb.AssertionFailed{StartTs: at(100), Key: []byte(w[2]), Assertion: kvrpcpb.Assertion_Exist}})
	case "timestamp": // of a calculated commit
		s.do = func(_ *fake, req transport.Message) (transport.Response, error) {
			if req.(*kvrpcpb.PrewriteRequest).TryOnePc {
				return &kvrpcpb.PrewriteResponse{OnePcCommitTs: at(num(2))}, nil
			}
			return &kvrpcpb.PrewriteResponse{MinCommitTs: at(num(2))}, nil
		}
	case "fallback":
		s.do = func(*fake, transport.Message) (transport.Response, error) { return &kvrpcpb.PrewriteResponse{}, nil }
	case "lostsplit": // it may have run, and the region changes
		s.do = lost
		s.then = w[2]
	case "abort":
		s.do = keyErr(&kvrpcpb.KeyError{Abort: strings.Join(w[2:], " ")})
	case "expired": // attempted min
		s.do = keyErr(&kvrpcpb.KeyError{CommitTsExpired: &kvrpcpb.CommitTsExpired{AttemptedCommitTs: at(num(2)), MinCommitTs: at(num(3))}})
	case "alive": // ttl
		s.do = status(&kvrpcpb.CheckTxnStatusResponse{LockTtl: num(2)})
	case "committed": // at
		s.do = status(&kvrpcpb.CheckTxnStatusResponse{CommitVersion: at(num(2))})
	case "dead":
		s.do = status(&kvrpcpb.CheckTxnStatusResponse{Action: kvrpcpb.Action_TTLExpireRollback})
	case "found": // a value
		s.do = func(_ *fake, req transport.Message) (transport.Response, error) {
			key := req.(*kvrpcpb.BatchGetRequest).Keys[0]
			return &kvrpcpb.BatchGetResponse{Pairs: []*kvrpcpb.KvPair{{Key: key, Value: []byte("x")}}}, nil
		}
	default:
		t.Fatalf("what is answer %q?", w)
	}
	return s
}

func status(resp *kvrpcpb.CheckTxnStatusResponse) func(*fake, transport.Message) (transport.Response, error) {
	return func(*fake, transport.Message) (transport.Response, error) { return resp, nil }
}
