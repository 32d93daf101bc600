package tikv

import (
	"fmt"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/codec"
)

func TestEnums(t *testing.T) {
	for v, want := range map[APIVersion]codec.APIVersion{APIV1: codec.V1, APIV1TTL: codec.V1TTL, APIV2: codec.V2} {
		if v.codec() != want {
			t.Errorf("%v is %v", v, v.codec())
		}
	}
	for p, want := range map[Priority]kvrpcpb.CommandPri{
		PriorityNormal: kvrpcpb.CommandPri_Normal, PriorityLow: kvrpcpb.CommandPri_Low, PriorityHigh: kvrpcpb.CommandPri_High,
	} {
		if p.wire() != want {
			t.Errorf("%v is %v", p, p.wire())
		}
	}
	if s := fmt.Sprint(APIV1, APIV1TTL, APIV2, APIVersion(9), PriorityNormal, PriorityLow, PriorityHigh, Priority(9)); s != "v1 v1ttl v2 APIVersion(9) normal low high Priority(9)" {
		t.Error(s)
	}
}
