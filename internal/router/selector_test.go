package router

import (
	"strconv"
	"strings"
	"testing"

	"github.com/tikv-go/tikv/internal/backoff"
)

// Scripts of the state machine, without I/O. Peers are written as L (the leader), F, N (a
// learner), W (a witness, or TiFlash's), with ! for a store that is away, ~ slow, # busy,
// * preferred, % down or pending. Answers are reasons; what is asked is a peer's number, with
// r for a replica read, s for a stale one, "1<2" for the first through the store of the
// second, and the delay before it, if any.

// play runs answers against the machine, and returns what is asked, and how it ends.
func play(t *testing.T, read, peers, answers string) string {
	t.Helper()
	w, ps := readOf(t, read), peersOf(t, peers)
	var s selector
	v := s.begin(&w, ps, 0)
	var out []string
	say := func() {
		if v.wait.Name != "" {
			out = append(out, "("+v.wait.Name+")")
		}
		if v.next != send {
			out = append(out, nextNames[v.next])
			return
		}
		to := strconv.Itoa(s.at+1) + askNames[s.ask]
		if s.via >= 0 {
			to += "<" + strconv.Itoa(s.via+1)
		}
		out = append(out, to)
	}
	say()
	for _, a := range strings.Fields(answers) {
		if v.next != send {
			t.Fatalf("%s %s %s: nobody is asked for %q: %v", read, peers, answers, a, out)
		}
		s.asked()
		e := eventOf(t, a)
		if e.named >= 0 {
			for i := range ps {
				if ps[i].role == leader {
					ps[i].role = follower
				}
			}
			ps[e.named].role = leader
		}
		v = s.after(&w, ps, e, 0)
		say()
	}
	return strings.Join(out, " ")
}

func readOf(t *testing.T, words string) wish {
	var w wish
	w.read = true
	for _, word := range strings.Fields(words) {
		switch word {
		case "write":
			w.read = false
		case "stale":
			w.stale = true
		case "threshold":
			w.threshold = true
		default:
			found := false
			for p := range lastPolicy {
				if p.String() == word {
					w.policy, found = p, true
				}
			}
			if !found {
				t.Fatalf("no wish %q", word)
			}
		}
	}
	return w
}

func peersOf(t *testing.T, words string) []peer {
	var ps []peer
	for _, word := range strings.Fields(words) {
		var p peer
		for _, c := range word {
			switch c {
			case 'L':
				p.role = leader
			case 'F':
				p.role = follower
			case 'N':
				p.role = learner
			case 'W':
				p.role = outside
			case '!':
				p.away = true
			case '~':
				p.slow = true
			case '#':
				p.busy = true
			case '*':
				p.near = true
			case '%':
				p.unwell = true
			default:
				t.Fatalf("no peer %q", word)
			}
		}
		ps = append(ps, p)
	}
	return ps
}

// eventOf reads an answer: a reason with dashes for spaces, "=n" for the leader that it
// names, and the other details of an event.
func eventOf(t *testing.T, word string) event {
	name, arg, _ := strings.Cut(word, "=")
	e := event{named: unnamed, detour: -1}
	switch name {
	case "late":
		name, e.short = "timeout", true
	case "behind":
		name, e.behind = "epoch-not-match", true
	case "out":
		name = "store-down"
		n, err := strconv.Atoi(arg)
		if err != nil {
			t.Fatal(err)
		}
		e.detour, arg = n-1, ""
	case "queue":
		name, e.queue = "server-busy", true
	}
	if arg == "?" {
		e.named = unknown
	} else if arg != "" {
		n, err := strconv.Atoi(arg)
		if err != nil {
			t.Fatal(err)
		}
		e.named = n - 1
	}
	for i := range rules {
		if strings.ReplaceAll(rules[i].reason.String(), " ", "-") == name && (rules[i].reason != OtherRegionError || rules[i].do == other) {
			e.rule = &rules[i]
			return e
		}
	}
	t.Fatalf("no answer %q", word)
	return e
}

// choices is what DESIGN.md shows of the machine: each line is run.
var choices = []struct{ read, peers, answers, asked string }{
	// Writes, and reads of the leader.
	{"write", "L F F", "", "1"},
	{"write", "L F F", "not-leader=3", "1 3"},
	{"write", "L F F", "not-leader=2 not-leader=1 not-leader=2 not-leader=1", "1 2 (scheduling) 1 (scheduling) 2 (scheduling) 1"},
	{"write", "L F F", "not-leader not-leader not-leader", "1 (scheduling) 2 (scheduling) 3 (scheduling) leave"},
	{"write", "L F F", "dial not-leader=2", "1 2 2"},
	{"write", "L F F", "dial not-leader=1", "1 2 1<2"},
	{"write", "L F F", "dial not-leader=1 connection-lost not-leader=1 timeout", "1 2 1<2 3 1<3 (rpc) stray"},
	{"write", "L! F F", "not-leader=1", "2 1<2"},
	{"write", "L F F", "out=3 connection-lost not-leader=1", "1 1<3 2 1<2"},
	{"write", "L F F", "server-busy server-busy not-leader=1 server-busy", "1 (server-busy) 1 (server-busy) 2 1 (server-busy) 1"},
	{"write", "L F F", "queue queue queue", "1 (server-busy) 1 (server-busy) 1 (server-busy) 1"},
	{"write", "L F F", "disk-full disk-full disk-full disk-full disk-full disk-full disk-full disk-full disk-full disk-full not-leader=1 disk-full other-region-error",
		"1 (disk-full) 1 (disk-full) 1 (disk-full) 1 (disk-full) 1 (disk-full) 1 (disk-full) 1 (disk-full) 1 (disk-full) 1 (disk-full) 1 2 (scheduling) 1 3 (disk-full) leave"},
	{"write", "L F F", "other-region-error other-region-error other-region-error", "1 2 3 (rpc) leave"},
	{"leader", "L F F", "late", "1 2r"},
	{"leader", "L F F", "late late late", "1 2r 3r 1"},
	{"leader threshold", "L F F", "queue", "1 2r"},
	{"leader threshold", "L# F F", "queue queue queue", "2r 3r 1 (server-busy) 1"},
	// Reads of other replicas.
	{"prefer-leader", "L F F", "dial", "1 2r"},
	{"prefer-leader", "L~ F F", "dial dial dial", "2r 3r 1 (rpc) stray"},
	{"follower", "L F F", "dial dial server-busy", "2r 3r 1 (server-busy) 1"},
	{"follower", "L F% N", "", "3r"},
	{"follower", "L W F!", "", "1"},
	{"any", "L! F~ F", "dial", "3r 2r"},
	{"nearest", "L F* F*", "timeout", "2r 3r"},
	{"nearest", "L* F* F", "timeout timeout", "1 2r 3r"},
	{"learner", "L F N", "region-not-found", "3r 1"},
	{"follower", "L F F", "read-index-not-ready", "2r 3r"},
	{"follower", "L F F", "flashback flashback", "2r 1 end"},
	{"follower", "L F F", "behind behind", "2r 1 (region-miss) locate"},
	// Stale reads.
	{"stale", "L F* F", "data-not-ready", "2s 1"},
	{"stale", "L F* F", "data-not-ready dial data-not-ready", "2s 1 3s 2r"},
	{"stale", "L! F* F", "data-not-ready data-not-ready", "2s 3s 2r"},
	{"stale follower", "L F F", "data-not-ready server-busy", "2s 1 3s"},
}

func TestChoices(t *testing.T) {
	for _, c := range choices {
		t.Run(c.read+"/"+c.peers+"/"+c.answers, func(t *testing.T) {
			if got := play(t, c.read, c.peers, c.answers); got != c.asked {
				t.Errorf("asked %q, not %q", got, c.asked)
			}
		})
	}
}

// Whatever answers come, whoever the peers are: nobody is asked who must not be, a peer is
// not asked for ever without a wait, and writes and stale reads keep to their forms.
func FuzzSelector(f *testing.F) {
	f.Add(uint8(0), []byte{1, 2, 2}, []byte{0, 1, 2, 3})
	f.Add(uint8(0x4f), []byte("70"), []byte("ZZZZZZZZZZZZZZZZZ")) // who is away is named by itself
	f.Fuzz(func(t *testing.T, kind uint8, who, what []byte) {
		if len(who) == 0 || len(who) > maxPeers {
			return
		}
		w := wish{policy: Policy(kind) % lastPolicy, read: kind&64 == 0, stale: kind&128 != 0, threshold: kind&32 != 0}
		if !w.read {
			w = wish{}
		}
		ps := make([]peer, len(who))
		for i, b := range who {
			ps[i] = peer{role: [...]role{outside, follower, learner, follower}[b%4], away: b&4 != 0, unwell: b&8 != 0, slow: b&16 != 0, busy: b&32 != 0, near: b&64 != 0}
		}
		ps[int(who[0])%len(ps)].role = leader
		var s selector
		v := s.begin(&w, ps, uint32(kind))
		idle := 0
		for i, b := range what {
			if v.next != send {
				return
			}
			if s.at < 0 || s.at >= len(ps) || s.via >= len(ps) || ps[s.at].role == outside {
				t.Fatalf("%+v of %+v", s.choice, ps)
			}
			if w.policy == ReadLeader && !w.read && s.ask != plain || s.ask == stale && !w.stale || s.via >= 0 && s.ask != plain {
				t.Fatalf("%+v for %+v", s.choice, w)
			}
			if ps[s.at].away && s.via < 0 && s.ask != plain {
				t.Fatalf("asks one that is away: %+v of %+v", s.choice, ps)
			}
			s.asked()
			e := event{rule: &rules[int(b)%len(rules)], named: unnamed, detour: -1, queue: b&64 != 0, short: b&128 != 0 && w.read && !w.patient, behind: i%2 == 0}
			if e.rule.reason == NotLeader && b&64 != 0 {
				e.named = int(b>>2) % len(ps)
				if ps[e.named].role == outside {
					e.named = unknown
				} else {
					ps[leaderOf(ps)].role = follower
					ps[e.named].role = leader
				}
			}
			v = s.after(&w, ps, e, uint32(i)*2654435761)
			if idle++; v.wait != (backoff.Kind{}) || v.next != send {
				idle = 0
			}
			if idle > 4*len(ps)+8 {
				t.Fatalf("%d attempts without a wait", idle)
			}
		}
	})
}
