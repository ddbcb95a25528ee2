package lint

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Log is a SARIF 2.1.0 log with one run, ready for encoding/json: what code hosts show beside the
// lines of a change. Only the properties that we fill are there.
//
// Source: OASIS Standard, Static Analysis Results Interchange Format (SARIF) Version 2.1.0; the
// section of each object stands beside its type.
type Log struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct { // 3.14
	Tool       sarifTool     `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifTool struct { // 3.18
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct { // 3.19
	Name           string      `json:"name"`
	Version        string      `json:"version,omitempty"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct { // 3.49
	ID                   string      `json:"id"`
	ShortDescription     sarifText   `json:"shortDescription"`
	FullDescription      sarifText   `json:"fullDescription"`
	DefaultConfiguration sarifConfig `json:"defaultConfiguration"`
	HelpURI              string      `json:"helpUri"`
}

type sarifConfig struct { // 3.50
	Level Severity `json:"level"`
}

type sarifText struct { // 3.11, 3.12
	Text string `json:"text"`
}

type sarifResult struct { // 3.27
	RuleID       string            `json:"ruleId"`
	RuleIndex    int               `json:"ruleIndex"`
	Level        Severity          `json:"level"`
	Message      sarifText         `json:"message"`
	Locations    []sarifLocation   `json:"locations,omitempty"`
	Fingerprints map[string]string `json:"partialFingerprints"`
	Fixes        []sarifFix        `json:"fixes,omitempty"`
}

type sarifLocation struct { // 3.28
	Physical *sarifPhysical `json:"physicalLocation,omitempty"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct { // 3.29
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   *sarifRegion  `json:"region,omitempty"`
}

type sarifArtifact struct { // 3.4
	URI string `json:"uri"`
}

type sarifRegion struct { // 3.30
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn,omitempty"`
	EndColumn   int `json:"endColumn,omitempty"`
}

type sarifLogical struct { // 3.33
	FullyQualifiedName string `json:"fullyQualifiedName"`
}

type sarifFix struct { // 3.55
	Description sarifText     `json:"description"`
	Changes     []sarifChange `json:"artifactChanges"`
}

type sarifChange struct { // 3.56
	Artifact     sarifArtifact      `json:"artifactLocation"`
	Replacements []sarifReplacement `json:"replacements"`
}

type sarifReplacement struct { // 3.57
	Deleted  sarifRegion `json:"deletedRegion"`
	Inserted sarifText   `json:"insertedContent"`
}

const (
	sarifSchema = "https://json.schemastore.org/sarif-2.1.0.json"
	homepage    = "https://github.com/bulkhead-firewall/bulkhead"
)

// Report makes a SARIF log of findings. version is the program's own, and may be empty.
func Report(findings []Finding, version string) Log {
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "bulkhead policy lint", Version: version, InformationURI: homepage}
	for _, k := range kinds {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: k.ID, ShortDescription: sarifText{k.Title}, FullDescription: sarifText{k.Why},
			DefaultConfiguration: sarifConfig{k.Severity}, HelpURI: homepage + "/blob/main/docs/lint.md#" + k.ID,
		})
	}
	for _, f := range findings {
		run.Results = append(run.Results, result(f))
	}
	return Log{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}}
}

func result(f Finding) sarifResult {
	text := f.Message
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	r := sarifResult{
		RuleID: f.Check, Level: f.Severity, Message: sarifText{text + "."},
		RuleIndex:    slices.IndexFunc(kinds, func(k Kind) bool { return k.ID == f.Check }),
		Fingerprints: map[string]string{"bulkhead/v1": fingerprint(f)},
	}
	var at sarifLocation
	if f.Policy != "" {
		at.Logical = []sarifLogical{{f.Policy}}
	}
	if f.File != "" && f.File != "-" {
		at.Physical = &sarifPhysical{Artifact: sarifArtifact{uri(f.File)}}
		if f.Line > 0 {
			at.Physical.Region = &sarifRegion{StartLine: f.Line, StartColumn: max(f.Column, 1)}
		}
	}
	if at.Physical != nil || at.Logical != nil {
		r.Locations = []sarifLocation{at}
	}
	if f.New != "" && at.Physical != nil && f.Line > 0 {
		place := sarifRegion{StartLine: f.Line, StartColumn: max(f.Column, 1)}
		place.EndColumn = place.StartColumn + len([]rune(f.Old))
		at.Physical.Region.EndColumn = place.EndColumn
		r.Fixes = []sarifFix{{sarifText{cmp.Or(f.Fix, "write "+f.New)}, []sarifChange{{at.Physical.Artifact, []sarifReplacement{{place, sarifText{f.New}}}}}}}
	}
	return r
}

// uri is a file's name as a relative reference, or as a file: URI where it is absolute (3.4.3).
func uri(file string) string {
	file = filepath.ToSlash(filepath.Clean(file))
	u := url.URL{Path: file}
	if strings.HasPrefix(file, "/") {
		u.Scheme = "file"
	}
	return u.String()
}

// fingerprint stays the same when lines above the finding come and go (3.27.17).
func fingerprint(f Finding) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{f.Check, f.Policy, f.Path, f.Message}, "\x00")))
	return hex.EncodeToString(sum[:16])
}
