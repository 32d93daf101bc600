package router

import (
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
)

// DESIGN.md's tables of errors and of choices are what the code says. On a difference the test prints what they
// are to be.
func TestDesignShowsTheTables(t *testing.T) {
	design, err := os.ReadFile("../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{tableOfRules(t), tableOfPlans(), tableOfChoices()} {
		if !strings.Contains(string(design), "\n\n"+table+"\n") {
			t.Errorf("DESIGN.md does not have this table:\n%s", table)
			continue
		}
		t.Log("\n" + table)
	}
}

var (
	actionTexts = [...]string{
		again: "the same peer again", other: "the next peer", aside: "a read that others may serve: the next peer; else the same again",
		follow: "the peer that it names; without one the next", plainly: "the leader, without the stale flag",
		relocate: "locate again", replace: "take over what it tells, locate again",
		refer: "the leader, if a replica says so; else an error", fail: "an error",
	}
	lessonTexts = [...]string{"who leads", "the regions", "the buckets", "the region is outdated", "the store's address may be", "the store is busy or slow", "the store does not answer"}
)

// tableOfRules is the table of errors in Markdown, by the names that errorpb has for them.
func tableOfRules(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| error | what follows | at one peer, at most | delay | the request | what the caches learn |\n|---|---|---|---|---|---|\n")
	names := fieldNames(t)
	for _, r := range rules {
		name, tries, wait := names[r.reason], "–", "–"
		switch {
		case name == "":
			name = r.reason.String()
		case r.reason == OtherRegionError && r.do == fail:
			name += ", of a timestamp from the future"
		}
		if r.tries > 0 && r.do != fail && r.do != refer {
			tries = strconv.Itoa(int(r.tries))
		}
		if r.wait.Name != "" {
			wait = r.wait.Name + ", " + short(r.wait.Base) + "–" + short(r.wait.Cap)
		}
		var lessons []string
		for i, text := range lessonTexts {
			if r.learn&(1<<i) != 0 {
				lessons = append(lessons, text)
			}
		}
		b.WriteString("| " + strings.Join([]string{name, actionTexts[r.do], tries, wait, fateNames[r.fate], strings.Join(lessons, ", ")}, " | ") + " |\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func short(d time.Duration) string {
	if d < time.Second || d%time.Second != 0 {
		return strconv.Itoa(int(d.Milliseconds())) + " ms"
	}
	return strconv.Itoa(int(d.Seconds())) + " s"
}

// fieldNames finds the rules of the parts of TiKV's message for region errors.
func fieldNames(t *testing.T) map[Reason]string {
	names := make(map[Reason]string)
	typ := reflect.TypeFor[errorpb.Error]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Type.Kind() != reflect.Pointer || strings.HasPrefix(f.Name, "XXX") {
			continue
		}
		e := &errorpb.Error{}
		reflect.ValueOf(e).Elem().Field(i).Set(reflect.New(f.Type.Elem()))
		r := ruleOf(e)
		if r.reason == OtherRegionError || names[r.reason] != "" {
			t.Errorf("%s has no rule of its own (%v, %s)", f.Name, r.reason, names[r.reason])
		}
		names[r.reason] = f.Name
	}
	names[OtherRegionError] = "only words"
	return names
}

// tableOfPlans is the order of each policy in Markdown.
func tableOfPlans() string {
	var b strings.Builder
	b.WriteString("| read | whom it asks, the first that can be asked |\n|---|---|\n")
	line := func(name string, steps ...[]step) {
		var texts []string
		for _, steps := range steps {
			for _, s := range steps {
				texts = append(texts, s.text())
			}
		}
		b.WriteString("| " + name + " | " + strings.Join(texts, "; ") + " |\n")
	}
	line("write, or "+policyNames[ReadLeader], plans[ReadLeader], heralds)
	line(policyNames[ReadLeader]+", which was late or is too busy", plans[ReadLeader], standIns)
	for p := ReadLeader + 1; p < lastPolicy; p++ {
		line(p.String(), plans[p])
	}
	line("stale, first", []step{{ask: stale}})
	line("stale, then", fallback, insist)
	return strings.TrimSuffix(b.String(), "\n")
}

// text is the step in words.
func (s step) text() string {
	if s.roles == 0 {
		return "as its policy says (leader: as any), by stale read"
	}
	var words []string
	for i, word := range []string{"quick", "near"} {
		if s.needs&(1<<i) != 0 {
			words = append(words, word)
		}
	}
	words = append(words, map[role]string{leader: "leader", follower: "followers", learner: "learners", replicaRoles: "replicas", anyRole: "peers"}[s.roles])
	switch {
	case s.ask == stale:
		words = append(words, "by stale read")
	case s.roles == follower && s.ask == plain:
		words = append(words, "as if they led, who tell who does")
	}
	return strings.Join(words, " ")
}

// tableOfChoices is what TestChoices runs, in Markdown.
func tableOfChoices() string {
	var b strings.Builder
	b.WriteString("| request | peers | answers | asked |\n|---|---|---|---|\n")
	for _, c := range choices {
		b.WriteString("| " + strings.Join([]string{c.read, "`" + c.peers + "`", c.answers, c.asked}, " | ") + " |\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Every part of TiKV's message for region errors has exactly one rule of its own, and
// every reason that the client makes up.
func TestEveryErrorHasARule(t *testing.T) {
	if names := fieldNames(t); len(names)+1 != regionErrors { // one more for words that tell something
		t.Errorf("%d rules for %d errors", regionErrors, len(names))
	}
	if r := ruleOf(&errorpb.Error{Message: "words"}); r.reason != OtherRegionError || r.fate != open {
		t.Error(r)
	}
	if r := ruleOf(&errorpb.Error{Message: "invalid max_ts update: 2 exceeds the limit 1"}); r.do != fail || r.fate != unrun {
		t.Error(r)
	}
	seen := make(map[Reason]bool)
	for i, r := range rules {
		if (r.set == nil) != (i >= regionErrors) || seen[r.reason] && i != regionErrors-1 {
			t.Errorf("%v is out of place", r.reason)
		}
		seen[r.reason] = true
		if i >= regionErrors && madeUp(r.reason) != &rules[i] {
			t.Errorf("%v is not found", r.reason)
		}
	}
	for r := ReasonNone + 1; r < lastReason; r++ {
		if !seen[r] && r != Lock { // which is no failure of an attempt
			t.Errorf("%v has no rule", r)
		}
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}

func TestRulesAreWhole(t *testing.T) {
	for _, r := range rules {
		if (r.do == fail || r.do == refer) != (r.wait.Name == "") {
			t.Errorf("%v: waits and gives up", r.reason)
		}
		if r.fate == open && (r.do == relocate || r.do == replace) {
			t.Errorf("%v: an open outcome must be met at the same region first", r.reason)
		}
	}
}

func TestClassify(t *testing.T) {
	for text, want := range map[string]Class{
		"":      ClassOther,
		"hello": ClassOther,
		"ttl is not enabled, but get put request with ttl":                                               ClassUnsupported,
		"cf is deprecated in API V2, cf name: write":                                                     ClassUnsupported,
		"max key size exceeded, size: 9000, limit: 8192":                                                 ClassTooLarge,
		"Key mode mismatched with the request mode, cmd: raw_put, ...":                                   ClassUnsupported,
		"Api version in request does not match with TiKV storage, cmd: x":                                ClassUnsupported,
		`Error(InvalidKeyMode { cmd: get, storage_api_version: V2, key: "61" })`:                         ClassUnsupported,
		"Error(ApiVersionNotMatched { cmd: prewrite, storage_api_version: V1ttl, req_api_version: V1 })": ClassUnsupported,
		"Error(InvalidKeyRangeMode { cmd: scan, storage_api_version: V2, range: (None, None) })":         ClassUnsupported,
	} {
		if got := Classify(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}
