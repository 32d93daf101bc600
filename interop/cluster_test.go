package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pingcap/log"
	"github.com/tikv/client-go/v2/config"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"go.uber.org/zap"
)

// bin is the folder of the programs under test, built once by TestMain.
var bin string

func TestMain(m *testing.M) {
	if role := os.Getenv(deathRole); role != "" {
		os.Exit(dieAfterPrewrite(role))
	}
	if pd := os.Getenv(corpseRole); pd != "" {
		os.Exit(leaveAll(pd))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	log.ReplaceGlobals(zap.NewNop(), nil) // the official client logs to standard output
	// Pessimistic and flushed locks live on while this process does not get to its
	// heartbeats; those of who is to die are another process's.
	atomic.StoreUint64(&transaction.ManagedLockTTL, uint64(patience.Milliseconds()))
	// An async commit does not fall back where an answer of PD takes its time to come here.
	config.UpdateGlobal(func(c *config.Config) { c.TiKVClient.AsyncCommit.SafeWindow = patience })
	dir, err := os.MkdirTemp("", "tikv-interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+string(filepath.Separator), "./cmd/tikv", "./internal/cmd/peer")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the programs under test:", err)
		return 1
	}
	return m.Run()
}

// cluster is a running `tikv playground`.
type cluster struct {
	PD      []string `json:"pd"`
	ID      uint64   `json:"cluster"`
	API     string   `json:"api"`
	Control string   `json:"control"`
}

// start runs a playground until the test ends.
func start(t *testing.T, args ...string) *cluster {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "tikv"), append([]string{"playground", "--port", "0", "--json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the playground ended with %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the playground did not become ready: %v", err)
	}
	c := new(cluster)
	if err := json.Unmarshal([]byte(line), c); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return c
}

// split cuts the region of a key.
func (c *cluster) split(t *testing.T, mode, key string) {
	t.Helper()
	c.control(t, "split", map[string]any{"mode": mode, "key": []byte(key)})
}

// control says a verb to the playground's control address.
func (c *cluster) control(t *testing.T, verb string, args map[string]any) {
	t.Helper()
	if args == nil {
		args = map[string]any{}
	}
	body, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post("http://"+c.Control+"/v1/"+verb, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %v: %s: %s %v", verb, args, resp.Status, answer, err)
	}
}

// region is a region as the control address describes it.
type region struct {
	ID     uint64   `json:"id"`
	Leader uint64   `json:"leader"`
	Stores []uint64 `json:"stores"`
}

func (c *cluster) regions(t *testing.T, mode string) []region {
	t.Helper()
	var all struct {
		Regions []region `json:"regions"`
	}
	c.look(t, "regions?mode="+mode, &all)
	return all.Regions
}

// calls is how many requests of a method have reached the cluster.
func (c *cluster) calls(t *testing.T, method string) int {
	t.Helper()
	var counts struct {
		Calls map[string]int `json:"calls"`
	}
	c.look(t, "counts", &counts)
	return counts.Calls[method]
}

// look asks the playground's control address.
func (c *cluster) look(t *testing.T, what string, into any) {
	t.Helper()
	resp, err := http.Get("http://" + c.Control + "/v1/" + what)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", what, resp.Status, err)
	}
}

func (c *cluster) officialRaw(t *testing.T, opts ...rawkv.ClientOpt) *rawkv.Client {
	t.Helper()
	client, err := rawkv.NewClientWithOpts(t.Context(), c.PD, append(opts, rawkv.WithSecurity(config.Security{}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (c *cluster) officialTxn(t *testing.T, opts ...txnkv.ClientOpt) *txnkv.Client {
	t.Helper()
	client, err := txnkv.NewClient(c.PD, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// peer is our own client in a process of its own: it reads commands, one JSON object a
// line, and answers each with one.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

type command struct {
	Do     string `json:"do"`
	Key    string `json:"key,omitempty"`
	Value  string `json:"value,omitempty"`
	End    string `json:"end,omitempty"`
	Die    bool   `json:"die,omitempty"`
	Times  int    `json:"times,omitempty"`
	Option string `json:"option,omitempty"`
	TS     uint64 `json:"ts,omitempty"`
}

type answer struct {
	Error string      `json:"error,omitempty"`
	Kind  string      `json:"kind,omitempty"` // of the error: "absent", "conflict", "undetermined", …
	Value *string     `json:"value,omitempty"`
	Pairs [][2]string `json:"pairs,omitempty"`
	TS    uint64      `json:"ts,omitempty"`
}

func (c *cluster) peer(t *testing.T, args ...string) *peer {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "peer"), append([]string{"-pd", strings.Join(c.PD, ","), "-api", c.API}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return p
}

// ask sends a command and returns its answer, failing the test on an error.
func (p *peer) ask(t *testing.T, c command) answer {
	t.Helper()
	a := p.try(t, c)
	if a.Error != "" {
		t.Fatalf("peer: %+v: %s", c, a.Error)
	}
	return a
}

func (p *peer) try(t *testing.T, c command) answer {
	t.Helper()
	p.send(t, c)
	return p.answer(t)
}

// answer reads the answer of the oldest command that has not had one.
func (p *peer) answer(t *testing.T) answer {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("peer: %v", err)
	}
	var a answer
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		t.Fatalf("peer: %q: %v", line, err)
	}
	return a
}

func (p *peer) send(t *testing.T, c command) {
	t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// die sends a command after which the peer ends without cleaning up.
func (p *peer) die(t *testing.T, c command) {
	t.Helper()
	c.Die = true
	p.send(t, c)
	if _, err := p.out.ReadString('\n'); err != io.EOF {
		t.Fatalf("the peer was to die, but: %v", err)
	}
}

// patience is how long a step against processes may take: it ends what hangs, on whatever
// machine.
const patience = 5 * time.Minute

// within is a context for one step against processes.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
