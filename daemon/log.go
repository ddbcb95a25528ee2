package daemon

import (
	"fmt"
	"log/slog"
)

// ParseLevel reads debug, info, warn or error.
func ParseLevel(s string) (slog.Level, error) {
	var l slog.Level
	switch s {
	case "debug", "info", "warn", "error":
		return l, l.UnmarshalText([]byte(s))
	}
	return 0, fmt.Errorf("level %q: want debug, info, warn or error", s)
}
