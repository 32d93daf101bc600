package tikv

import (
	"context"
	"reflect"
	"testing"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/transport"
)

// rpcNotServed are the methods that Call refuses, and why.
var rpcNotServed = map[string]string{
	"KvGC":                 "TiKV answers UNIMPLEMENTED",
	"KvImport":             "TiKV's handler panics",
	"ReadIndex":            "between stores",
	"CheckLeader":          "between stores",
	"DelegateCoprocessor":  "between stores",
	"RegisterLockObserver": "gone from TiKV",
	"CheckLockObserver":    "gone from TiKV",
	"RemoveLockObserver":   "gone from TiKV",
	"PhysicalScanLock":     "gone from TiKV",
	"tryAddLock":           "within TiFlash",
	"tryMarkDelete":        "within TiFlash",
	"EstablishDisaggTask":  "within TiFlash",
	"CancelDisaggTask":     "within TiFlash",
	"FetchDisaggPages":     "within TiFlash",
	"GetDisaggConfig":      "within TiFlash",
	"BatchCommands":        "the transport's",
	"Raft":                 "between stores",
	"BatchRaft":            "between stores",
	"Snapshot":             "between stores",
	"TabletSnapshot":       "between stores",
}

// Every method of the service is served or refused, by its right name, and what is served
// is known to the transport.
func TestEveryMethodHasTraits(t *testing.T) {
	server := grpc.NewServer()
	defer server.Stop()
	tikvpb.RegisterTikvServer(server, &tikvpb.UnimplementedTikvServer{})
	missing := make(map[string]bool)
	for _, m := range server.GetServiceInfo()["tikvpb.Tikv"].Methods {
		missing[m.Name] = true
	}
	pool := transport.New(transport.Config{})
	defer pool.Close()
	served := make(map[string]bool)
	methods := reflect.TypeFor[tikvpb.TikvClient]()
	for i := range methods.NumMethod() {
		m := methods.Method(i)
		var s stub
		args := []reflect.Value{reflect.ValueOf(context.Background())}
		var req reflect.Value
		if m.Type.NumIn() == 3 {
			req = reflect.New(m.Type.In(1).Elem())
			args = append(args, req)
		}
		reflect.ValueOf(&s).MethodByName(m.Name).Call(args)
		if !missing[s.method] {
			t.Errorf("%s calls %q, which the service does not have, or another calls as well", m.Name, s.method)
		}
		delete(missing, s.method)
		_, has := rpcMethods[s.method]
		if _, not := rpcNotServed[s.method]; has == not {
			t.Errorf("%s must be served or not", s.method)
		}
		served[s.method] = has
		if !has || s.stream {
			continue
		}
		resp := pool.NewResponse(req.Interface().(transport.Message))
		if resp == nil || reflect.TypeOf(resp) != m.Type.Out(0) {
			t.Errorf("the transport's answer to %s is a %T", s.method, resp)
		}
	}
	for name := range missing {
		t.Errorf("no method calls %s", name)
	}
	for name := range rpcMethods {
		if !served[name] {
			t.Errorf("%s is served, and no method", name)
		}
	}
}
