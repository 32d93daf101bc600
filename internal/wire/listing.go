package wire

import "google.golang.org/protobuf/encoding/protowire"

// ListMethod is the call of PD's storage of small things by which a Listing is asked for.
// It is encoded here because its package would add 100 KiB to every program, for the few
// clusters whose PD has its services apart.
const ListMethod = "/meta_storagepb.MetaStorage/Get"

// ListRequest is a meta_storagepb.GetRequest for all entries from Key to before End.
type ListRequest struct{ Key, End []byte }

// Marshal encodes r (kvproto meta_storagepb.proto).
func (r *ListRequest) Marshal() ([]byte, error) {
	data := protowire.AppendTag(nil, 2, protowire.BytesType)
	data = protowire.AppendBytes(data, r.Key)
	data = protowire.AppendTag(data, 3, protowire.BytesType)
	return protowire.AppendBytes(data, r.End), nil
}

// Listing is decoded from a meta_storagepb.GetResponse.
type Listing struct {
	Refused bool     // the header has an error
	Values  [][]byte // they refer to what was decoded
}

// Unmarshal decodes a GetResponse (kvproto meta_storagepb.proto).
func (l *Listing) Unmarshal(data []byte) error {
	*l = Listing{}
	return fields(data, func(num protowire.Number, body []byte) error {
		switch num {
		case 1:
			return fields(body, func(num protowire.Number, _ []byte) error {
				l.Refused = l.Refused || num == 2
				return nil
			})
		case 2:
			l.Values = append(l.Values, nil)
			return fields(body, func(num protowire.Number, value []byte) error {
				if num == 5 {
					l.Values[len(l.Values)-1] = value
				}
				return nil
			})
		}
		return nil
	})
}

// fields calls f with the fields of a message, in order.
func fields(data []byte, f func(num protowire.Number, body []byte) error) error {
	for len(data) > 0 {
		num, body, _, n := field(data)
		if n < 0 {
			return ErrMalformed
		}
		if err := f(num, body); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
