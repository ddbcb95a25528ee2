package policy

// Split parts a file into its documents, as [Parse] does. Together they are the file, byte for byte.
func Split(data []byte) [][]byte {
	var out [][]byte
	for _, d := range split(data) {
		out = append(out, d.text)
	}
	return out
}
