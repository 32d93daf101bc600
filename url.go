package tikv

import (
	"context"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// OpenURL is Open for tikv://pd1:2379,pd2:2379/keyspace?ca=…&cert=…&key=…&api=…: the
// members of PD, a keyspace, files with the certificate authority, the client's
// certificate and its key in PEM (as for WithTLSFiles), and the API version (v1, v1ttl,
// v2). All but the members may be left out; a member without a port has PD's, 2379. opts
// win over the URL. An unknown parameter is ErrInvalid.
func OpenURL(ctx context.Context, url string, opts ...Option) (*Client, error) {
	const op = "OpenURL"
	t, err := parseURL(op, url)
	if err != nil {
		return nil, err
	}
	return open(ctx, op, t.pd, append(t.options(), opts...))
}

// target is what a URL says.
type target struct {
	pd            []string
	keyspace      string
	api           string
	ca, cert, key string
}

const (
	urlScheme     = "tikv://"
	defaultPDPort = "2379"
)

// parseURL reads a URL, and reports all that is wrong with it. The list of members is
// no host in the sense of net/url, which sees the rest alone.
func parseURL(op, text string) (*target, error) {
	bad := &problems{op: op}
	rest, ok := strings.CutPrefix(text, urlScheme)
	if !ok {
		bad.add("url", "must begin with "+urlScheme)
		return nil, bad.err()
	}
	hosts := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		hosts = rest[:i]
	}
	t := &target{pd: members(bad, hosts)}
	u, err := url.Parse(urlScheme + "pd" + rest[len(hosts):])
	if err != nil { // it repeats the whole URL
		bad.add("url", "has a malformed keyspace or parameter")
		return nil, bad.err()
	}
	if u.Fragment != "" {
		bad.add("url", "has a fragment")
	}
	if t.keyspace = strings.TrimPrefix(u.Path, "/"); strings.Contains(t.keyspace, "/") {
		bad.add("url", "has more than one keyspace")
	}
	t.parameters(bad, u.RawQuery)
	return t, bad.err()
}

// members reads a list of addresses.
func members(bad *problems, list string) []string {
	var out []string
	for _, addr := range strings.Split(list, ",") {
		host, port, err := net.SplitHostPort(addr)
		if err != nil { // perhaps without a port
			host, port, err = net.SplitHostPort(addr + ":" + defaultPDPort)
		}
		n, perr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || perr != nil || n == 0:
			bad.add("url", "has a malformed address "+strconv.Quote(addr))
		case host == "":
			bad.add("url", "has an empty address")
		case strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`@%\"<>`, r) }):
			bad.add("url", "has a character in "+strconv.Quote(addr)+" that no address has")
		default:
			out = append(out, net.JoinHostPort(host, port))
		}
	}
	return out
}

// parameters reads what follows the question mark.
func (t *target) parameters(bad *problems, query string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		bad.add("url", "has malformed parameters")
		return
	}
	known := map[string]*string{"api": &t.api, "ca": &t.ca, "cert": &t.cert, "key": &t.key}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch to := known[name]; {
		case to == nil:
			bad.add("url", "has an unknown parameter "+strconv.Quote(name))
		case len(values[name]) > 1 || values[name][0] == "":
			bad.add("url", "needs one value of parameter "+name)
		default:
			*to = values[name][0]
		}
	}
	if t.api != "" && !slices.Contains([]string{"v1", "v1ttl", "v2"}, t.api) {
		bad.add("url", "has an unknown API version "+strconv.Quote(t.api))
	}
	if (t.cert == "") != (t.key == "") {
		bad.add("url", "needs cert and key together")
	}
}

// options makes Open's options of a URL.
func (t *target) options() []Option {
	var opts []Option
	switch t.api {
	case "v1":
		opts = append(opts, WithAPIVersion(APIV1))
	case "v1ttl":
		opts = append(opts, WithAPIVersion(APIV1TTL))
	case "v2":
		opts = append(opts, WithAPIVersion(APIV2))
	}
	if t.keyspace != "" {
		opts = append(opts, WithKeyspace(t.keyspace))
	}
	if t.ca == "" && t.cert == "" {
		return opts
	}
	return append(opts, WithTLSFiles(t.ca, t.cert, t.key))
}
