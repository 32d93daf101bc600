//go:build master

package main

import (
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/util"
	pd "github.com/tikv/pd/client"
)

// bytesOf is the value in what a snapshot's get returns.
func bytesOf(v kv.ValueEntry) []byte { return v.Value }

func intercepted(c pd.Client) pd.Client { return util.NewInterceptedPDClient(c) }
