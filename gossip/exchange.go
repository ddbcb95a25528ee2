package gossip

// Anti-entropy: what broadcasts did not bring. A summary of some twenty bytes goes to a random node
// now and then; if that node's differs, both send the hashes of their parts, then the versions in the
// parts that differ, and each asks for what it lacks:
//
//	a → b  summary
//	b → a  vector               a → b  heads of differing parts, vector
//	b → a  want, heads          a → b  contents, want
//	b → a  contents
//
// Two nodes that hold the same pay the summary.

// Summary is the message that starts an exchange.
func (s *State) Summary() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return encode(msgSummary, s.summary())
}

func (s *State) summary() *summary {
	return &summary{Books: fold(&s.bookParts), Registers: fold(&s.registers.hashes)}
}

// fold makes one hash of many; a rotation keeps equal parts from cancelling each other out.
func fold(list *[parts]uint64) (out uint64) {
	for _, h := range list {
		out = (out<<7 | out>>57) ^ h
	}
	return out
}

func (s *State) onSummary(theirs *summary) ([][]byte, error) {
	if *theirs == *s.summary() {
		return nil, nil
	}
	return [][]byte{encode(msgVector, s.vector(false))}, nil
}

func (s *State) vector(answer bool) *vector {
	return &vector{Books: s.bookParts[:], Registers: s.registers.hashes[:], Answer: answer}
}

func (s *State) onVector(v *vector) ([][]byte, error) {
	var h heads
	differs := [2][parts]bool{}
	for i := range parts {
		differs[0][i] = v.Books[i] != s.bookParts[i]
		differs[1][i] = v.Registers[i] != s.registers.hashes[i]
	}
	for id, b := range s.books {
		if differs[0][partOfOwner(id.owner)] {
			h.Books = append(h.Books, headOf(b))
		}
	}
	for id, r := range s.registers.records {
		if differs[1][partOf(id)] {
			h.Registers = append(h.Registers, r.head())
		}
	}
	var out [][]byte
	if !v.Answer {
		out = append(out, encode(msgVector, s.vector(true)))
	}
	if len(h.Books)+len(h.Registers) > 0 {
		out = append(out, encode(msgHeads, &h))
	}
	return out, nil
}

// onWant sends what was asked for: the buckets of books that differ, and records, some at a time.
func (s *State) onWant(w *want) ([][]byte, error) {
	var out [][]byte
	for _, x := range w.Books {
		b := s.books[bookID{x.Owner, x.Kind}]
		if b == nil || !x.Have.Before(b.head.Version) {
			continue
		}
		differ := allBuckets
		if len(x.Hashes) == buckets {
			differ = 0
			for i, h := range b.shortHashes() {
				if h != x.Hashes[i] {
					differ.add(i)
				}
			}
		}
		out = append(out, encode(msgContents, b.contents(differ)))
	}
	var batch records
	size := 0
	for _, id := range w.Registers {
		r, had := s.registers.records[id]
		if !had {
			continue
		}
		if size += len(r.Value) + len(r.Key); size > recordsAtOnce && len(batch.List) > 0 {
			out = append(out, encode(msgRecords, &batch))
			batch, size = records{}, len(r.Value)
		}
		batch.List = append(batch.List, r)
	}
	if len(batch.List) > 0 {
		out = append(out, encode(msgRecords, &batch))
	}
	return out, nil
}
