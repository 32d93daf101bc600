package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// program is this command, built by TestMain, for tests that kill it.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tikv-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "tikv")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// process is a playground in a process of its own.
type process struct {
	cmd    *exec.Cmd
	line   string // the first of its output
	errOut bytes.Buffer
	pd     string
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, append([]string{"playground"}, args...)...)}
	p.cmd.Stderr = &p.errOut
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if p.line, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		p.cmd.Wait()
		t.Fatalf("no ready line: %v\n%s", err, &p.errOut)
	}
	for field := range strings.FieldsSeq(p.line) {
		if pd, ok := strings.CutPrefix(field, "pd="); ok {
			p.pd = pd
		}
	}
	return p
}

// end sends a signal and waits for the process.
func (p *process) end(t *testing.T, sig os.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	return p.cmd.Wait()
}

func TestPlaygroundProcess(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := startProcess(t, "--port", "0", "--stores", "1")
		var pd, control string
		var id uint64
		if n, err := fmt.Sscanf(p.line, "ready pd=%s cluster=%d api=v1 control=%s\n", &pd, &id, &control); n != 3 || err != nil || id == 0 {
			t.Fatalf("ready line %q: %v", p.line, err)
		}
		if code, _, errOut := tool(t, "put", "--pd", pd, "a", "1", patience); code != 0 {
			t.Fatal(code, errOut)
		}
		if err := p.end(t, sig); err != nil {
			t.Fatalf("after %v: %v", sig, err)
		}
	}
	p := startProcess(t, "--port", "0", "--stores", "1", "--api", "v2", "--json")
	var ready struct {
		PD      []string
		Cluster uint64
		API     string
		Control string
	}
	if err := json.Unmarshal([]byte(p.line), &ready); err != nil || len(ready.PD) != 1 || ready.API != "v2" || ready.Control == "" || ready.Cluster == 0 {
		t.Fatal(p.line, err)
	}
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func TestPlaygroundRefuses(t *testing.T) {
	for _, v := range []struct {
		args []string
		says string
	}{
		{[]string{"--api", "v3"}, "can only be 1"},
		{[]string{"--stores", "0"}, "--stores"},
		{[]string{"--stores", "2000"}, "--stores"},
		{[]string{"--keyspace", "a", "--api", "v1"}, "--api v2"},
		{[]string{"--dir", ""}, "--dir is empty"},
		{[]string{"--tls", ""}, "--tls is empty"},
		{[]string{"--port", "-1"}, "not a port"},
		{[]string{"--port", "65534"}, "find no ports"},
		{[]string{"--port", "65530", "--members", "4"}, "find no ports"},
		{[]string{"--members", "0"}, "--members"},
		{[]string{"--members", "8"}, "--members"},
		{[]string{"--seed", "-1"}, "--seed"},
		{[]string{"--fsync"}, "--dir"},
		{[]string{"--members", "8"}, "1 to 7"},
		{[]string{"--coprocessor", "dag=echo"}, "no type"},
		{[]string{"--coprocessor", "103=sum"}, "echo and checksum"},
		{[]string{"--port", "70000"}, "not a port"},
		{[]string{"more"}, "no arguments"},
	} {
		code, out, errOut := tool(t, append([]string{"playground"}, v.args...)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, v.says) {
			t.Errorf("%q: %d %q %q", v.args, code, out, errOut)
		}
	}
}

func TestDirectoryIsLockedAndRemembersItsShape(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, "--port", "0", "--stores", "2", "--members", "3", "--dir", dir)
	cluster := strings.Fields(p.line)[2]
	threePDs := func(line string) {
		t.Helper()
		if pd := strings.Fields(line)[1]; strings.Count(pd, ",") != 2 {
			t.Errorf("three members are at %s", pd)
		}
	}
	threePDs(p.line)
	refused := func(says string, args ...string) {
		t.Helper()
		out, err := exec.Command(program, append([]string{"playground", "--port", "0", "--dir", dir}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), says) || strings.Contains(string(out), "ready ") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	refused("use")
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	refused("v1", "--api", "v2")
	refused("2 stores", "--stores", "3")
	refused("3 members", "--members", "1")
	p = startProcess(t, "--port", "0", "--dir", dir)
	threePDs(p.line)
	if got := strings.Fields(p.line)[2]; got != cluster {
		t.Errorf("%s, it was %s", got, cluster)
	}
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// A directory of another API version than the default opens without being told, and two
// clusters are never the same one.
func TestDirectoryRemembersItsVersion(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	for _, args := range [][]string{{"--dir", dir, "--keyspace", "tenant"}, {"--dir", dir}, nil, nil} {
		p := startProcess(t, append([]string{"--port", "0", "--stores", "1"}, args...)...)
		fields := strings.Fields(p.line)
		ids = append(ids, fields[2])
		if want := map[bool]string{true: "api=v2", false: "api=v1"}[args != nil]; fields[3] != want {
			t.Errorf("%q: %s", args, p.line)
		}
		if err := p.end(t, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] != ids[1] || ids[2] == ids[3] || ids[0] == ids[2] {
		t.Errorf("%q", ids)
	}
}

// A cluster that speaks TLS is reached with the files that it writes, also after a
// rotation; with those of before, or without any, it is not.
func TestPlaygroundTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	p := startProcess(t, "--port", "0", "--stores", "1", "--tls", dir)
	if !strings.HasSuffix(strings.TrimSpace(p.line), " tls="+dir) {
		t.Errorf("ready line %q", p.line)
	}
	old := t.TempDir()
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(old, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put := func(from string, args ...string) (int, string) {
		url := "tikv://" + p.pd
		if from != "" {
			url += fmt.Sprintf("?ca=%[1]s/ca.pem&cert=%[1]s/cert.pem&key=%[1]s/key.pem", from)
		}
		code, _, errOut := tool(t, append([]string{"put", "--url", url, "a", "1"}, args...)...)
		return code, errOut
	}
	if code, errOut := put(dir, patience); code != 0 {
		t.Fatal(code, errOut)
	}
	if code, errOut := put("", "--timeout", "300ms"); code != exitUnavailable {
		t.Error("without TLS:", code, errOut)
	}
	var control string
	for field := range strings.FieldsSeq(p.line) {
		if c, ok := strings.CutPrefix(field, "control="); ok {
			control = c
		}
	}
	resp, err := http.Post("http://"+control+"/v1/rotate-tls", "application/json", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if code, errOut := put(dir, patience); code != 0 {
		t.Error("after the rotation:", code, errOut)
	}
	if code, errOut := put(old, "--timeout", "300ms"); code != exitUnavailable {
		t.Error("with the old files:", code, errOut)
	}
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
