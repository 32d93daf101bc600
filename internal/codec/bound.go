package codec

// A group of the memcomparable encoding is 8 bytes of key and a mark, which is 0xf7
// plus the number of bytes that count; 8 of them, and more groups follow.
const (
	groupKey  = 8
	groupSize = groupKey + 1
	markNone  = 0xff - groupKey
)

// firstFrom returns the first key whose memcomparable encoding is not below bound. For
// a bound that is an encoding this is the key it encodes.
func firstFrom(bound []byte) []byte {
	key := []byte{}
	for {
		// A bound that ends within a group compares as if zeros followed.
		var group [groupSize]byte
		n := copy(group[:], bound)
		bound = bound[n:]
		content, mark := group[:groupKey], int(group[groupKey])

		// The fewest bytes of content that make this group at least: all but its
		// zeros at the end, and as many as the mark asks for.
		count := groupKey
		for count > 0 && content[count-1] == 0 {
			count--
		}
		count = max(count, mark-markNone)
		if count < groupKey && markNone+count == mark && len(bound) > 0 {
			count++ // equal so far, and the bound goes on where the key would end
		}
		key = append(key, content[:count]...)
		if mark != 0xff {
			return key
		}
	}
}
