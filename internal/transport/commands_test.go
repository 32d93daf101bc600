package transport

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
)

// notCommands are the methods of TiKV's service that Call does not know, and why.
var notCommands = map[string]string{
	"BatchCommands":          "the stream itself",
	"KvGC":                   "TiKV answers UNIMPLEMENTED",
	"KvImport":               "TiKV's handler panics",
	"CoprocessorStream":      "a stream of answers: through Conn",
	"BatchCoprocessor":       "TiFlash; a stream",
	"DelegateCoprocessor":    "between stores",
	"Raft":                   "between stores",
	"BatchRaft":              "between stores",
	"Snapshot":               "between stores",
	"TabletSnapshot":         "between stores",
	"ReadIndex":              "between stores, and TiFlash's",
	"CheckLeader":            "between stores",
	"DispatchMPPTask":        "TiFlash",
	"CancelMPPTask":          "TiFlash",
	"EstablishMPPConnection": "TiFlash",
	"IsAlive":                "TiFlash",
	"ReportMPPTaskStatus":    "TiFlash",
	"GetTiFlashSystemTable":  "TiFlash",
	"GetEstimateTiCICount":   "TiFlash",
	"tryAddLock":             "TiFlash, disaggregated",
	"tryMarkDelete":          "TiFlash, disaggregated",
	"EstablishDisaggTask":    "TiFlash, disaggregated",
	"CancelDisaggTask":       "TiFlash, disaggregated",
	"FetchDisaggPages":       "TiFlash, disaggregated",
	"GetDisaggConfig":        "TiFlash, disaggregated",
}

// notBatched are the members of a batched request that Call does not use, and why.
var notBatched = map[string]string{
	"GC":     "TiKV drops it without an answer",
	"Import": "TiKV's handler panics",
	"Empty":  "for tests of the stream",
}

// TestEveryMethodIsKnown walks the service that kvproto describes.
func TestEveryMethodIsKnown(t *testing.T) {
	known := map[string]reflect.Type{}
	for typ, c := range newCommands() {
		known[strings.TrimPrefix(c.method, service)] = typ
	}
	server := grpc.NewServer()
	defer server.Stop()
	tikvpb.RegisterTikvServer(server, &tikvpb.UnimplementedTikvServer{})
	methods := server.GetServiceInfo()["tikvpb.Tikv"].Methods
	client := reflect.TypeFor[tikvpb.TikvClient]()
	// grpc registers two methods by their Go names, while clients call them by those of
	// the service; both are excluded.
	title := map[string]string{"TryAddLock": "tryAddLock", "TryMarkDelete": "tryMarkDelete"}
	if len(methods) != client.NumMethod() {
		t.Fatalf("%d methods in the service, %d in the client", len(methods), client.NumMethod())
	}
	for _, m := range methods {
		name := m.Name
		if other, ok := title[name]; ok {
			name = other
		}
		typ, ok := known[name]
		switch reason := notCommands[name]; {
		case ok == (reason != ""):
			t.Errorf("%s: known %v, excluded %q", name, ok, reason)
			continue
		case !ok:
			continue
		}
		f, _ := client.MethodByName(name)
		if in := f.Type.In(1); in != typ {
			t.Errorf("%s takes %v, the table says %v", name, in, typ)
		}
		if out := reflect.TypeOf(newCommands()[typ].reply()); f.Type.Out(0) != out {
			t.Errorf("%s gives %v, the table says %v", name, f.Type.Out(0), out)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("no method %s", name)
	}
}

// TestEveryBatchedCommandIsKnown walks the members of a batched request, and checks for
// each command that wrapping puts it into the member of its name, and that unwrapping
// takes the answer from there and from nowhere else.
func TestEveryBatchedCommandIsKnown(t *testing.T) {
	commands := newCommands()
	answers := map[string]any{}
	for _, w := range new(response).XXX_OneofWrappers() {
		answers[reflect.TypeOf(w).Elem().Field(0).Name] = w
	}
	wraps := 0
	for _, w := range new(request).XXX_OneofWrappers() {
		member := reflect.TypeOf(w).Elem().Field(0)
		cmd, ok := commands[member.Type]
		if reason := notBatched[member.Name]; ok == (reason != "") {
			t.Errorf("%s: known %v, excluded %q", member.Name, ok, reason)
		}
		if !ok {
			continue
		}
		if cmd.wrap == nil {
			t.Errorf("%s is not batched", member.Name)
			continue
		}
		wraps++
		var req request
		msg := reflect.New(member.Type.Elem()).Interface().(Message)
		cmd.wrap(&req, msg)
		if reflect.TypeOf(req.Cmd) != reflect.TypeOf(w) || reflect.ValueOf(req.Cmd).Elem().Field(0).Interface() != any(msg) {
			t.Errorf("%s went into %T", member.Name, req.Cmd)
		}
		for name, a := range answers {
			v := reflect.New(reflect.TypeOf(a).Elem())
			in := reflect.New(v.Elem().Field(0).Type().Elem())
			v.Elem().Field(0).Set(in)
			var resp response
			reflect.ValueOf(&resp).Elem().FieldByName("Cmd").Set(v)
			got := cmd.unwrap(&resp)
			if (got != nil) != (name == member.Name) || got != nil && any(got) != in.Interface() {
				t.Errorf("%s takes %v from an answer to %s", member.Name, got, name)
			}
		}
		if cmd.unwrap(&response{}) != nil || cmd.unwrap(nil) != nil {
			t.Errorf("%s takes an answer from nothing", member.Name)
		}
	}
	all := 0
	for _, c := range commands {
		if c.wrap != nil {
			all++
		}
	}
	if all != wraps {
		t.Errorf("%d batched commands, %d members for them", all, wraps)
	}
}

// TestNearlyAllCarryAContext lists the commands without one: the router cannot send
// those to a region.
func TestNearlyAllCarryAContext(t *testing.T) {
	var without []string
	for typ, c := range newCommands() {
		if !typ.Implements(reflect.TypeFor[Request]()) {
			without = append(without, strings.TrimPrefix(c.method, service))
		}
	}
	slices.Sort(without)
	if want := []string{"Compact", "GetStoreSafeTS"}; !slices.Equal(without, want) {
		t.Errorf("without a context: %v", without)
	}
}
