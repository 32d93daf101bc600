package playground

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// duration is one in JSON, as "1m30s".
type duration time.Duration

// MarshalText returns the duration's words.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText takes the words of time.ParseDuration.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration such as \"1m30s\"", text)
	}
	*d = duration(parsed)
	return nil
}

// timestamp is one in JSON, a number, or as answers have it, text.
type timestamp uint64

// UnmarshalJSON takes a number or text.
func (ts *timestamp) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	parsed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%s is no timestamp", text)
	}
	*ts = timestamp(parsed)
	return nil
}

// read reads a request of at most limit bytes.
func read(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if long := (*http.MaxBytesError)(nil); errors.As(err, &long) {
		return nil, fmt.Errorf("the request is longer than %d bytes", limit)
	}
	return request, err
}

// decode makes a struct of a request, one JSON object with no other fields than the
// struct's, and with those that have no "omitempty"; nothing at all is an object without
// fields.
func decode(request []byte, into any) error {
	if len(bytes.TrimSpace(request)) == 0 {
		request = []byte("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(request))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return errors.New(refusal(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the request is more than one JSON object")
	}
	var given map[string]any
	if err := json.Unmarshal(request, &given); err != nil || given == nil {
		return errors.New("the request is no JSON object")
	}
	return missing(reflect.TypeOf(into).Elem(), given)
}

// missing refuses a request without a field that its verb needs.
func missing(of reflect.Type, given map[string]any) error {
	for i := range of.NumField() {
		name, rest, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if rest == "" && !isGiven(given, name) {
			return fmt.Errorf("the field %q is missing", name)
		}
	}
	return nil
}

// isGiven looks for a field in any case, as encoding/json does.
func isGiven(given map[string]any, name string) bool {
	for key, value := range given {
		if strings.EqualFold(key, name) && value != nil {
			return true
		}
	}
	return false
}

// refusal says in words of JSON what encoding/json says in words of Go.
func refusal(err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fmt.Sprintf("the request is no JSON object, but a %s", wrong.Value)
		}
		return fmt.Sprintf("the field %q is %s, not a %s", wrong.Field, fieldOf(wrong.Type), wrong.Value)
	}
	if corrupt := base64.CorruptInputError(0); errors.As(err, &corrupt) {
		return fmt.Sprintf("the request has bytes that are not in base64: %v", err)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return "the verb has an unknown field " + field
	}
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Sprintf("the request is no JSON object: %v", err)
	}
	return fmt.Sprintf("the request: %v", err)
}

// fieldOf is what a field takes.
func fieldOf(t reflect.Type) string {
	if t == reflect.TypeFor[duration]() {
		return `a duration such as "1m30s"`
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number from 0"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes in base64"
		}
		return "a list"
	}
	return "an object"
}
