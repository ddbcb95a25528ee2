package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

var policyFormats = []string{"native", "kubernetes"}

func (a *app) policyGenerate() *cobra.Command {
	var namespace, service, format, dir, evidence string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Write policies that allow what was seen, and nothing else",
		Long: `Write policies that allow what was seen, and nothing else.

--with-evidence writes a file of tests for "bulkhead policy test", too: what was seen is allowed, what no
evidence covers is denied, so that an edit which breaks or opens anything fails. With --out it goes to
FOLDER/tests/evidence.yaml (or --with-evidence=FILE), with the workloads that it was made of beside it as
inventory.json; without, it follows the policies.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(policyFormats, format) {
				return usage(cmd, "format %q: want native or kubernetes", format)
			}
			if namespace != "" && strings.ContainsRune(service, '/') {
				return usage(cmd, "--service %s names its namespace already; leave --namespace out", service)
			}
			if service != "" && !strings.ContainsRune(service, '/') && namespace != "" {
				service = namespace + "/" + service
			} else if service != "" {
				service = qualified(service)
			}
			text, err := a.client().Generate(cmd.Context(), namespace, service, format)
			if err != nil {
				return err
			}
			var tests []byte
			var workloads []byte
			if evidence != "" {
				if tests, workloads, err = a.evidence(cmd.Context(), text); err != nil {
					return err
				}
			}
			if dir == "" && (evidence == besidePolicies || evidence == "") {
				if len(tests) > 0 {
					text = strings.TrimSuffix(text, "\n") + "\n---\n" + string(tests)
				}
				return a.printPolicies(text)
			}
			if dir == "" {
				if err := a.printPolicies(text); err != nil {
					return err
				}
			} else if err := a.writePolicies(dir, text); err != nil {
				return err
			}
			if evidence == "" {
				return nil
			}
			return a.writeEvidence(evidence, dir, tests, workloads)
		},
	}
	f := cmd.Flags()
	f.StringVar(&namespace, "namespace", "", "only services of this namespace")
	f.StringVar(&service, "service", "", "only this service")
	f.StringVar(&format, "format", "native", "native, or kubernetes for networking.k8s.io/v1 NetworkPolicy")
	f.StringVar(&dir, "out", "", "write one file per policy into this folder instead of standard output")
	f.StringVar(&evidence, "with-evidence", "", "write tests of the evidence, too")
	f.Lookup("with-evidence").NoOptDefVal = besidePolicies
	complete(cmd, "format", policyFormats...)
	a.completeServices(cmd, "service")
	if err := cmd.MarkFlagDirname("out"); err != nil {
		panic(err)
	}
	return cmd
}

// printPolicies shows the YAML as it came, comments and all; as JSON it is a list of documents.
func (a *app) printPolicies(text string) error {
	if a.output != "json" {
		_, err := fmt.Fprint(a.out, text)
		return err
	}
	docs, err := decodeDocuments(text)
	if err != nil {
		return err
	}
	return a.print(docs, nil)
}

// writePolicies writes each document to NAMESPACE-NAME.yaml and says which files changed.
func (a *app) writePolicies(dir, text string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write policies: %w", err)
	}
	for _, doc := range splitDocuments(text) {
		name, err := fileNameOf(doc)
		if err != nil {
			return err
		}
		if name == "" {
			continue // comments only: why something has no policy
		}
		path := filepath.Join(dir, name)
		word := "wrote"
		switch old, err := os.ReadFile(path); {
		case err == nil && string(old) == doc:
			word = "unchanged"
		case err == nil:
			word = "changed"
		}
		if word != "unchanged" {
			if err := os.WriteFile(path, []byte(doc), 0o644); err != nil {
				return fmt.Errorf("write policies: %w", err)
			}
		}
		fmt.Fprintf(a.out, "%s  %s\n", word, path)
	}
	return nil
}

// documentName is a Kubernetes object name; anything else never becomes part of a path.
var documentName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

func fileNameOf(doc string) (string, error) {
	objects, err := decodeDocuments(doc)
	if err != nil || len(objects) == 0 {
		return "", err
	}
	meta, _ := objects[0]["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	namespace, _ := meta["namespace"].(string)
	if namespace == "" {
		namespace = "default"
	}
	if !documentName.MatchString(name) || !documentName.MatchString(namespace) {
		return "", fmt.Errorf("write policies: %q in namespace %q is no name for a file; leave --out away to see it", name, namespace)
	}
	return namespace + "-" + name + ".yaml", nil
}
