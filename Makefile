# Bulkhead. `make help` lists the targets; README.md needs two of them: demo and test.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

BIN        := $(CURDIR)/bin
PROGRAMS   := bulkhead bulkheadd bulkhead-cni bulkhead-lab
GOTESTSUM  := gotest.tools/gotestsum@v1.13.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME   ?= 20s
PKG        ?= ./...
BUDGET     ?= 10m
SEED       ?=

.PHONY: help build tools test bench bench-policy bench-cluster attack lint demo cover fuzz netpol soak clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

build: ## build the programs into bin/
	@scripts/need.sh build
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS)) ./examples/...

tools: build ## build the reference CNI plugins (pinned in test/tools) into bin/cni/
	@test/tools/build.sh $(BIN)/cni

demo: ## the whole job on one machine, narrated; KEEP=1 leaves it up (root)
	@scripts/need.sh demo
	@$(MAKE) --no-print-directory -s tools
	@KEEP=$(KEEP) $(BIN)/demo

test: ## every test, kernel and end-to-end parts included (root)
	@scripts/need.sh test
	@$(MAKE) --no-print-directory -s tools
	@mkdir -p .cache
	BULKHEAD_REQUIRE_ROOT=1 BULKHEAD_BIN=$(BIN) go run $(GOTESTSUM) --format pkgname-and-test-fails \
	  --jsonfile .cache/test.json -- -race -count=1 -p 2 -timeout 15m $(PKG)
	@scripts/noskips.sh .cache/test.json

bench: ## CPU ratios against no rules, in the same interleaved run (root)
	@scripts/need.sh bench
	@$(MAKE) --no-print-directory -s tools
	@BULKHEAD_BIN=$(BIN) go run ./test/bench -plot rules-cost.png

bench-policy: ## what one workload's coming costs among many, and many policies: table, docs/policy-cost.svg
	@go test -run '^$$' -bench BenchmarkChange -benchtime 300ms ./policy | go run ./test/bench/curves docs/policy-cost.svg

bench-cluster: ## how long a change takes to all nodes: real ones with loss, then many simulated (root)
	@scripts/need.sh test
	@$(MAKE) --no-print-directory -s tools
	@BULKHEAD_BIN=$(BIN) go run ./test/cluster/measure
	@go run ./test/bench/swarm -nodes 10,30,100,300,1000 -loss 0,5,20 -plot docs/cluster-spread.svg
	@go run ./test/bench/swarm -nodes 10000 -loss 0 -changes 30
	@go test -run '^$$' -bench 'ColdStart|EndpointMemory' -benchtime 1x ./gossip ./daemon | grep -E '/op|/endpoint'

attack: ## every attack that is promised to fail, in every state of the daemon, as a table (root)
	@scripts/need.sh test
	@$(MAKE) --no-print-directory -s tools
	BULKHEAD_REQUIRE_ROOT=1 BULKHEAD_BIN=$(BIN) go test ./test/attack -run TestThreat -count=1 -timeout 30m -v | grep -vE '^ *(=== |--- PASS)'

lint: ## gofmt, vet, staticcheck
	@scripts/need.sh build
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "not formatted; run: gofmt -w"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

cover: ## coverage of all packages as coverage.html (root)
	@scripts/need.sh test
	@$(MAKE) --no-print-directory -s tools
	BULKHEAD_REQUIRE_ROOT=1 BULKHEAD_BIN=$(BIN) go test -count=1 -p 2 -coverpkg=./... -coverprofile=coverage.out ./... >/dev/null
	go tool cover -html=coverage.out -o coverage.html
	@go tool cover -func=coverage.out | tail -n 1

fuzz: ## every fuzz target for FUZZTIME (20s) each
	@scripts/need.sh build
	@for t in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9]+' $$t/*_test.go | sed 's/func //'); do \
	    echo "$$t $$f"; go test $$t -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) || exit 1; done; done

netpol: ## random policies, kernel against evaluator, for BUDGET (10m); SEED=N repeats a run (root)
	@scripts/need.sh test
	@$(MAKE) --no-print-directory -s tools
	BULKHEAD_REQUIRE_ROOT=1 BULKHEAD_BIN=$(BIN) BULKHEAD_BUDGET=$(BUDGET) BULKHEAD_SEED=$(SEED) \
	  go test ./test/netpol -run 'TestEvaluator|TestKernel|TestRandom' -count=1 -timeout 0 -v | grep -vE '^ *(=== |--- PASS)'

soak: ## edits, churn, attacks and crashes at random for BUDGET (10m); SEED=N repeats a run; CHURN, FLOWS, REUSES (root)
	@scripts/need.sh test
	@$(MAKE) --no-print-directory -s tools
	BULKHEAD_REQUIRE_ROOT=1 BULKHEAD_BIN=$(BIN) BULKHEAD_BUDGET=$(BUDGET) BULKHEAD_SEED=$(SEED) \
	  BULKHEAD_CHURN=$(or $(CHURN),2000) BULKHEAD_FLOWS=$(or $(FLOWS),1000000) BULKHEAD_REUSES=$(or $(REUSES),50) \
	  go test ./test/attack -run 'TestSoak|TestThreat6|TestThreat7' -count=1 -timeout 0 -v | grep -vE '^ *=== '

clean: ## remove what was built
	rm -rf bin .cache coverage.out coverage.html
