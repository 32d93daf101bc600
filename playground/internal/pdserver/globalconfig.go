package pdserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// The global config: what others than PD keep in its etcd through it. Any member serves
// it, to anyone: its requests have no header (PD: server/grpc_service.go, StoreGlobalConfig,
// LoadGlobalConfig, WatchGlobalConfig).

const globalConfig = "/global/config/"

// controllerConfig may be read with LoadGlobalConfig too (keypath.ControllerConfigPath).
const controllerConfig = "resource_group/controller"

// maxOps is how much etcd does at once (etcd: embed/config.go, DefaultMaxTxnOps, which PD
// keeps; api/v3rpc/key.go, checkTxnRequest).
const maxOps = 128

// configPath is PD's normalizeGlobalConfigPath.
func configPath(path string) (string, error) {
	switch {
	case path == "", path == strings.TrimSuffix(globalConfig, "/"):
		return globalConfig, nil
	case strings.HasPrefix(path, globalConfig):
		return path, nil
	}
	return "", status.Errorf(codes.InvalidArgument, "global config path %q is not allowed", path)
}

// configKey is PD's resolveGlobalConfigKey.
func configKey(path, name string) string {
	switch {
	case name == "":
		return strings.TrimSuffix(path, "/")
	case strings.HasSuffix(path, "/"):
		return path + name
	}
	return path + "/" + name
}

// StoreGlobalConfig puts and deletes items together.
func (m *Member) StoreGlobalConfig(_ context.Context, req *pdpb.StoreGlobalConfigRequest) (*pdpb.StoreGlobalConfigResponse, error) {
	path, err := configPath(req.GetConfigPath())
	if err != nil {
		return nil, err
	}
	if len(req.GetChanges()) > maxOps {
		return nil, status.Error(codes.Unknown, "etcdserver: too many operations in txn request")
	}
	var writes []etcd.Write
	put, deleted := make(map[string]bool), make(map[string]bool)
	for _, item := range req.GetChanges() {
		key := configKey(path, item.GetName())
		w := etcd.Write{Key: []byte(key), Value: item.GetPayload(), Delete: item.GetKind() == pdpb.EventType_DELETE}
		if v := item.GetValue(); v != "" {
			w.Value = []byte(v)
		}
		if put[key] || deleted[key] && !w.Delete { // etcd: api/v3rpc/key.go, checkIntervals
			return nil, status.Error(codes.Unknown, "etcdserver: duplicate key given in txn request")
		}
		if w.Delete && deleted[key] {
			continue
		}
		put[key], deleted[key] = !w.Delete, w.Delete
		writes = append(writes, w)
	}
	if _, _, err := m.pd.kv.Apply(writes...); err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.StoreGlobalConfigResponse{}, nil
}

// LoadGlobalConfig reads items by their names, or all under a path, with their keys for
// names and the revision that a watch may begin after.
func (m *Member) LoadGlobalConfig(_ context.Context, req *pdpb.LoadGlobalConfigRequest) (*pdpb.LoadGlobalConfigResponse, error) {
	path := req.GetConfigPath()
	if len(req.GetNames()) > 0 || path != controllerConfig {
		var err error
		if path, err = configPath(path); err != nil {
			return nil, err
		}
	}
	resp := &pdpb.LoadGlobalConfigResponse{}
	for _, name := range req.GetNames() {
		item, err := m.configItem(configKey(path, name), name)
		if err != nil {
			return nil, err
		}
		resp.Items = append(resp.Items, item)
	}
	if len(req.GetNames()) > 0 {
		return resp, nil
	}
	found, revision, err := m.pd.kv.Range([]byte(path), keys.PrefixEnd([]byte(path)), 0)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	for _, kv := range found {
		resp.Items = append(resp.Items, &pdpb.GlobalConfigItem{Kind: pdpb.EventType_PUT, Name: string(kv.Key), Payload: kv.Value})
	}
	resp.Revision = revision
	return resp, nil
}

func (m *Member) configItem(key, name string) (*pdpb.GlobalConfigItem, error) {
	found, _, err := m.pd.kv.Range([]byte(key), nil, 0)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	if len(found) == 0 {
		return &pdpb.GlobalConfigItem{Name: name, Error: &pdpb.Error{
			Type: pdpb.ErrorType_GLOBAL_CONFIG_NOT_FOUND, Message: "key " + name + " not found",
		}}, nil
	}
	return &pdpb.GlobalConfigItem{Name: name, Payload: found[0].Value, Kind: pdpb.EventType_PUT}, nil
}

// WatchGlobalConfig reports the changes under a path from a revision on, 0 for those to
// come, until its caller or the server ends.
func (m *Member) WatchGlobalConfig(req *pdpb.WatchGlobalConfigRequest, stream pdpb.PD_WatchGlobalConfigServer) error {
	ctx := stream.Context()
	return m.message(ctx, "WatchGlobalConfig", req, func() error {
		path, err := configPath(req.GetConfigPath())
		if err != nil {
			return err
		}
		w := m.pd.kv.Watch([]byte(path), keys.PrefixEnd([]byte(path)), req.GetRevision())
		for {
			events, revision, wait, err := w.Next()
			switch {
			case errors.Is(err, etcd.ErrCompacted):
				text := fmt.Sprintf("required watch revision: %d is smaller than current compact/min revision %d.", req.GetRevision(), revision)
				if err := stream.Send(&pdpb.WatchGlobalConfigResponse{Header: m.pd.refusal(pdpb.ErrorType_DATA_COMPACTED, text)}); err != nil {
					return err
				}
				return status.Error(codes.Unknown, err.Error())
			case err != nil:
				return status.Error(codes.Unknown, err.Error())
			}
			if len(events) > 0 {
				if err := stream.Send(&pdpb.WatchGlobalConfigResponse{Changes: configChanges(events), Revision: revision}); err != nil {
					return err
				}
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return nil
			case <-m.life(ctx).Done():
				return nil
			}
		}
	})
}

// configChanges are the changes as items; one that was deleted comes with what it was.
func configChanges(events []etcd.Event) []*pdpb.GlobalConfigItem {
	var items []*pdpb.GlobalConfigItem
	for _, e := range events {
		item := &pdpb.GlobalConfigItem{Name: string(e.KV.Key), Payload: e.KV.Value, Kind: pdpb.EventType_PUT}
		if e.Deleted {
			item.Payload, item.Kind = e.Prev.Value, pdpb.EventType_DELETE
		}
		items = append(items, item)
	}
	return items
}
