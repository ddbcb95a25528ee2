package policy

import (
	"fmt"
	"strings"
)

// didYouMean gives `; did you mean "podSelector"?` where one of the known words is near.
func didYouMean(word string, known []string) string {
	best := Nearest(word, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// Nearest gives the known word that a mistyped one most likely stands for, or "". Capitals do not
// count.
func Nearest(word string, known []string) string {
	best, distance := "", 4
	for _, k := range known {
		d := editDistance(strings.ToLower(word), strings.ToLower(k))
		if d < distance && d <= max(1, len(k)/3) {
			best, distance = k, d
		}
	}
	return best
}

// editDistance counts letters put in, left out, changed, or swapped with their neighbour (optimal
// string alignment). Words longer than any field name are far from all of them.
func editDistance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	var rows [41][41]int
	for i := 0; i <= len(a); i++ {
		for j := 0; j <= len(b); j++ {
			if i == 0 || j == 0 {
				rows[i][j] = i + j
				continue
			}
			cost := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				cost++
			}
			rows[i][j] = min(cost, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// list joins words for people: "A, B or C".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
