//go:build !unix

package vnet

import (
	"errors"
	"io"
	"net"
)

// reserve is not known here: ports that are let go are anyone's.
func reserve(*net.TCPAddr) (io.Closer, error) { return nil, errors.ErrUnsupported }
