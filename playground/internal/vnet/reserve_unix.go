//go:build unix

package vnet

import (
	"io"
	"net"
	"syscall"
)

// reserve binds a socket to an address and does not listen. It may be bound beside
// connections that are still ending, as a listener may.
func reserve(at *net.TCPAddr) (io.Closer, error) {
	family, address := syscall.AF_INET6, syscall.Sockaddr(nil)
	if ip := at.IP.To4(); ip != nil {
		family, address = syscall.AF_INET, &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(ip)}
	} else {
		address = &syscall.SockaddrInet6{Port: at.Port, Addr: [16]byte(at.IP.To16())}
	}
	syscall.ForkLock.RLock() // no child gets it
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
		err = syscall.Bind(fd, address)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	return descriptor(fd), nil
}

type descriptor int

func (d descriptor) Close() error { return syscall.Close(int(d)) }
