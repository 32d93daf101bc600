//go:build !master

package main

import (
	"github.com/tikv/client-go/v2/util"
	pd "github.com/tikv/pd/client"
)

// What differs between the version in go.mod and master.

// bytesOf is what a snapshot's get returns.
func bytesOf(v []byte) []byte { return v }

func intercepted(c pd.Client) pd.Client { return util.InterceptedPDClient{Client: c} }
