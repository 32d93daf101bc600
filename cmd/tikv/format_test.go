package main

import (
	"bytes"
	"testing"
)

func TestFormats(t *testing.T) {
	for _, v := range []struct {
		f          format
		bytes, str string
	}{
		{formatEscaped, "a\\b\x00\xff\n", `a\\b\x00\xff\n`},
		{formatHex, "a\xff", "61ff"},
		{formatBase64, "a\xff", "Yf8="},
		{formatRaw, "a\xff", "a\xff"},
	} {
		if got := v.f.encode([]byte(v.bytes)); got != v.str {
			t.Errorf("%s: encode(%q) = %q", v.f, v.bytes, got)
		}
		if got, err := v.f.decode(v.str); err != nil || string(got) != v.bytes {
			t.Errorf("%s: decode(%q) = %q, %v", v.f, v.str, got, err)
		}
	}
	for _, bad := range []string{`\`, `\q`, `\x1`, `\xzz`} {
		if _, err := formatEscaped.decode(bad); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got, err := formatEscaped.decode("é\\0"); err != nil || string(got) != "é\x00" {
		t.Errorf("%q %v", got, err)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("a\\b\x00"), `\x0g`)
	f.Fuzz(func(t *testing.T, b []byte, s string) {
		back, err := unescape(escape(b))
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%q came back as %q, %v", b, back, err)
		}
		if got, err := unescape(s); err == nil {
			if again, err := unescape(escape(got)); err != nil || !bytes.Equal(again, got) {
				t.Fatalf("%q: %q %v", s, again, err)
			}
		}
	})
}
