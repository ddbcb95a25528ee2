// Package alert decides what makes a connection odd, folds repeats, and sends alerts to their
// destinations. It is pure but for its sinks.
package alert
