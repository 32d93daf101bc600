package copr

import "fmt"

// Plugins are the coprocessors of version 2, by name (TiKV src/coprocessor_v2).
type Plugins map[string]Plugin

// Plugin computes answers from raw pairs.
type Plugin struct {
	Version Version
	Handler Handler
}

// Find returns the plugin with a name that satisfies a constraint on its version, or why
// there is none (endpoint.rs, handle_request_impl).
func (ps Plugins) Find(name, constraint string) (Handler, string) {
	if len(ps) == 0 {
		return nil, "Coprocessor plugin is disabled!"
	}
	p, ok := ps[name]
	if !ok {
		return nil, fmt.Sprintf("No registered coprocessor with name '%s'", name)
	}
	want, err := parseRequirement(constraint)
	if err != nil {
		return nil, err.Error()
	}
	if !want.holds(p.Version.v) {
		return nil, fmt.Sprintf("The plugin '%s' with version '%s' does not satisfy the version constraint '%s'", name, p.Version, constraint)
	}
	return p.Handler, ""
}
