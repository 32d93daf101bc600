package main

import (
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tikv-go/tikv/bench/internal/harness"
)

// options are what the flags say.
type options struct {
	list, campaign, markdown, load bool

	run, callers, against, rivalSrc string
	server, pd, json                string
	rounds, regions                 int
	delay                           time.Duration

	spec harness.Spec // of every run, but for what a case says

	cases []kase
}

// kase is one row: a workload under a number of callers.
type kase struct {
	Workload string        `json:"workload"`
	Regions  int           `json:"regions"`
	Delay    time.Duration `json:"delay"`
	Callers  int           `json:"callers"`
}

func (k kase) String() string {
	s := k.Workload
	if k.Regions != 1 {
		s += fmt.Sprintf("@%d", k.Regions)
	}
	if k.Delay > 0 {
		s += "+" + k.Delay.String()
	}
	return fmt.Sprintf("%s c=%d", s, k.Callers)
}

// What a campaign is, unless flags say otherwise.
const (
	campaignRun     = "rawget,rawput,rawbatchget50,rawbatchget50@100,rawscan100,snapget,tso"
	campaignCallers = "1,64,256"
	clientGo        = "client-go"
)

func parse(args []string) (*options, error) {
	o := new(options)
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.list, "list", false, "list the workloads")
	f.BoolVar(&o.campaign, "campaign", false, "the figures of docs/performance.md: "+campaignRun+" at "+campaignCallers+" callers, as -against client-go -markdown")
	f.StringVar(&o.run, "run", "", "workloads, separated by commas; rawget@100 is rawget over 100 regions")
	f.StringVar(&o.callers, "c", "1,64,256", "numbers of concurrent callers")
	f.StringVar(&o.against, "against", "", "the rival: "+clientGo)
	f.StringVar(&o.rivalSrc, "rival-src", "", "folder with a checkout of the rival's master; the default is the version in bench/rival/go.mod")
	f.IntVar(&o.rounds, "rounds", 5, "how often each is measured")
	f.DurationVar(&o.spec.Dur, "dur", 3*time.Second, "how long a measurement takes")
	f.DurationVar(&o.spec.Warm, "warm", 500*time.Millisecond, "how long its warm-up does")
	f.IntVar(&o.regions, "regions", 1, "regions of the key space")
	f.DurationVar(&o.delay, "delay", 0, "how long the null store takes for each frame")
	f.StringVar(&o.server, "server", "null", "what to measure against: null or playground")
	f.StringVar(&o.pd, "pd", "", "addresses of a real cluster's PD, instead of -server; keys that begin with \"bench/\" are read and written there")
	f.BoolVar(&o.load, "load", false, "write the keys to the real cluster first")
	f.IntVar(&o.spec.Keys, "keys", 100_000, "size of the key space")
	f.IntVar(&o.spec.KeySize, "key-size", 24, "bytes of a key")
	f.IntVar(&o.spec.ValueSize, "value-size", 100, "bytes of a value")
	f.StringVar(&o.json, "json", "", "write all results to this file")
	f.BoolVar(&o.markdown, "markdown", false, "print a table in Markdown")
	f.StringVar(&o.spec.CPUProfile, "cpuprofile", "", "write a CPU profile of our client, of the last measurement")
	f.StringVar(&o.spec.MemProfile, "memprofile", "", "write a profile of our client's allocations (it slows it down)")
	f.StringVar(&o.spec.MutexProfile, "mutexprofile", "", "write a profile of our client's mutexes")
	f.StringVar(&o.spec.Trace, "trace", "", "write an execution trace of our client")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.campaign {
		o.markdown = true
		if o.run == "" {
			o.run = campaignRun
		}
		if o.against == "" {
			o.against = clientGo
		}
	}
	return o, o.check()
}

func (o *options) check() (err error) {
	if o.list {
		return nil
	}
	if o.cases, err = o.expand(); err != nil {
		return err
	}
	switch {
	case o.against != "" && o.against != clientGo:
		return fmt.Errorf("-against %s: the rival is %s", o.against, clientGo)
	case o.rivalSrc != "" && o.against == "":
		return fmt.Errorf("-rival-src without -against %s", clientGo)
	case o.rounds < 1 || o.spec.Dur <= 0 || o.spec.Warm < 0 || o.regions < 1 || o.delay < 0:
		return fmt.Errorf("-rounds, -dur and -regions must be above 0, -warm and -delay not below")
	case o.spec.KeySize < 16 || o.spec.Keys < 1000 || o.spec.ValueSize < 1:
		return fmt.Errorf("at least 1000 keys of 16 bytes, and values of one")
	case o.server != "null" && o.server != "playground":
		return fmt.Errorf("-server %s: null or playground", o.server)
	case o.delay > 0 && (o.server != "null" || o.pd != ""):
		return fmt.Errorf("-delay is the null store's")
	case o.pd != "" && o.server != "null":
		return fmt.Errorf("-server and -pd")
	case o.load && o.pd == "":
		return fmt.Errorf("-load is for -pd")
	}
	return nil
}

// expand makes the cases of -run and -c.
func (o *options) expand() (cases []kase, err error) {
	if o.run == "" {
		return nil, fmt.Errorf("nothing to run: -run, -campaign or -list")
	}
	for name := range strings.SplitSeq(o.run, ",") {
		k := kase{Workload: name, Regions: o.regions, Delay: o.delay}
		if w, regions, ok := strings.Cut(name, "@"); ok {
			k.Workload = w
			if k.Regions, err = strconv.Atoi(regions); err != nil || k.Regions < 1 || k.Regions > o.spec.Keys {
				return nil, fmt.Errorf("-run %s: no number of regions", name)
			}
		}
		if _, err := harness.Find(k.Workload); err != nil {
			return nil, err
		}
		for c := range strings.SplitSeq(o.callers, ",") {
			if k.Callers, err = strconv.Atoi(c); err != nil || k.Callers < 1 {
				return nil, fmt.Errorf("-c %s: not a number of callers", c)
			}
			cases = append(cases, k)
		}
	}
	return cases, nil
}

func list(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	have := new(user).operations()
	for _, x := range harness.Workloads {
		note := ""
		if have[x.Name] == nil {
			note = " (the rival's alone: " + ours + " has no option for it yet)"
		}
		fmt.Fprintf(w, "%s\t%s%s\n", x.Name, x.About, note)
	}
	w.Flush()
}
