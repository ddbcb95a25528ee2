package lint

import (
	"fmt"
	"strings"
	"unicode"
)

// some joins names, the first few of them.
func some(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// oneLetter says whether two words differ by one letter that was changed, left out, put in or
// swapped with its neighbour, as a slip of the hand does. Words that differ in a digit, or by an s at
// their end, are names of different things.
func oneLetter(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 || a == b || len(a) < 4 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	var odd string
	switch {
	case len(a) < len(b):
		if a[i:] != b[i+1:] || i == len(a) && b[i] == 's' {
			return false
		}
		odd = b[i : i+1]
	case a[i+1:] == b[i+1:]:
		odd = a[i:i+1] + b[i:i+1]
	case i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]:
		odd = a[i : i+2]
	default:
		return false
	}
	return !strings.ContainsFunc(odd, func(r rune) bool { return !unicode.IsLetter(r) && r != '-' && r != '_' })
}
