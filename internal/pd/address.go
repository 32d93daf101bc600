package pd

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// hostPort returns the host:port of an address or of one of PD's client URLs.
func hostPort(addr string) (string, error) {
	s := strings.TrimSpace(addr)
	if _, after, ok := strings.Cut(s, "://"); ok {
		s = after
	}
	s = strings.TrimSuffix(s, "/")
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", addr, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if host == "" || err != nil || n == 0 || strings.ContainsAny(s, "/?#% ") {
		return "", fmt.Errorf("address %q: not host:port", addr)
	}
	return s, nil
}

// CheckAddress returns what is wrong with an address that Open would be given.
func CheckAddress(addr string) error {
	_, err := hostPort(addr)
	return err
}

// hostPorts returns those of addrs, each once.
func hostPorts(addrs []string) ([]string, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no address")
	}
	var all []string
	for _, a := range addrs {
		hp, err := hostPort(a)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, hp) {
			all = append(all, hp)
		}
	}
	return all, nil
}
