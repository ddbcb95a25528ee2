package shop

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxMessage bounds one framed message or line, in bytes: the shop's own are a few dozen.
const maxMessage = 64 << 10

// exchange sends one request over c in the protocol named and reads its answer to the end, so that
// c can be used again.
func exchange(app string, c net.Conn) error {
	switch app {
	case "http":
		return exchangeHTTP(c)
	case "grpc":
		return exchangeFrame(c)
	case "redis":
		return exchangeRedis(c)
	}
	return fmt.Errorf("application protocol %q: the shop does not speak it", app)
}

// serve answers requests on c in the protocol named until the client leaves.
func serve(app string, c net.Conn) error {
	r := bufio.NewReaderSize(c, maxMessage)
	answer := map[string]func(*bufio.Reader, io.Writer) error{
		"http": answerHTTP, "grpc": answerFrame, "redis": answerRedis, "dns": answerStream,
	}[app]
	if answer == nil {
		return fmt.Errorf("application protocol %q: the shop does not speak it", app)
	}
	for {
		if err := answer(r, c); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func exchangeHTTP(c net.Conn) error {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop\r\nUser-Agent: shop\r\nMetadata-Flavor: Google\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

func answerHTTP(r *bufio.Reader, w io.Writer) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return err
	}
	_, err = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n")
	return err
}

// A frame stands for a gRPC call: a length of four bytes, as in gRPC's own message prefix, then the
// message, over a connection that many calls share.

func exchangeFrame(c net.Conn) error {
	if err := writeFrame(c, []byte("a call")); err != nil {
		return err
	}
	_, err := readFrame(c)
	return err
}

func answerFrame(r *bufio.Reader, w io.Writer) error {
	m, err := readFrame(r)
	if err != nil {
		return err
	}
	return writeFrame(w, m)
}

func writeFrame(w io.Writer, m []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(m)), uint32(len(m)))
	_, err := w.Write(append(b, m...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("frame of %d bytes: bound is %d", n, maxMessage)
	}
	m := make([]byte, n)
	_, err := io.ReadFull(r, m)
	return m, err
}

// Redis's protocol: arrays of bulk strings, https://redis.io/docs/latest/develop/reference/protocol-spec.
// The shop keeps one cart; that is all its cache needs.

func exchangeRedis(c net.Conn) error {
	r := bufio.NewReader(c)
	for _, step := range []struct{ send, want string }{
		{"*1\r\n$4\r\nPING\r\n", "+PONG"},
		{"*3\r\n$3\r\nSET\r\n$4\r\ncart\r\n$3\r\nmug\r\n", "+OK"},
		{"*2\r\n$3\r\nGET\r\n$4\r\ncart\r\n", "$3"},
	} {
		if _, err := io.WriteString(c, step.send); err != nil {
			return err
		}
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if line != step.want {
			return fmt.Errorf("answer %q, want %q", line, step.want)
		}
	}
	_, err := readLine(r) // the bulk string itself
	return err
}

func answerRedis(r *bufio.Reader, w io.Writer) error {
	head, err := readLine(r)
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscanf(head, "*%d", &n); err != nil || n < 1 || n > 8 {
		return fmt.Errorf("command %q: want an array", head)
	}
	var words []string
	for range n {
		if _, err := readLine(r); err != nil { // the length; the shop's values hold no line end
			return err
		}
		word, err := readLine(r)
		if err != nil {
			return err
		}
		words = append(words, word)
	}
	answer := "-ERR unknown command\r\n"
	switch strings.ToUpper(words[0]) {
	case "PING":
		answer = "+PONG\r\n"
	case "SET":
		answer = "+OK\r\n"
	case "GET":
		answer = "$3\r\nmug\r\n"
	}
	_, err = io.WriteString(w, answer)
	return err
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}
