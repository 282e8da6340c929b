# Everything a developer or CI runs. `make` alone lists the targets.

GO      ?= go
SHELL   := /bin/bash
CACHE   := $(or $(ROWTIDE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rowtide)
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CACHE)/bin/golangci-lint-$(GOLANGCI_VERSION)
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# How long `make demo` runs, for example DEMO_FOR=30s. Empty: until ^C.
DEMO_FOR ?=
FUZZTIME ?= 30s
# Packages, and flags for go test, for example: make test PKG=./binlog/... ARGS='-run TestX -v'
PKG  ?= ./...
ARGS ?=
# Two packages at a time: the servers and the tests share the same cores.
INTEGRATION = $(GO) test -race -tags integration -timeout 30m -p 2

.DEFAULT_GOAL := help
.PHONY: help build setup demo test unit bench nines lint fmt tidy-check fuzz cover clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'

build: ## Build bin/rowtide
	$(GO) build -trimpath -ldflags '-X main.release=$(VERSION)' -o bin/rowtide ./cmd/rowtide

setup: ## Install what the demo and the tests need (apt, Maven; see scripts/setup.sh)
	@scripts/setup.sh test

demo: ## Run the demo shop on private servers (DEMO_FOR=30s ends it by itself)
	@scripts/setup.sh demo
	$(GO) run ./cmd/rowtide demo $(if $(DEMO_FOR),--for $(DEMO_FOR))

test: setup bin/testservers ## Run every test against real servers (PKG=./binlog/... ARGS='-run TestX')
	bin/testservers -- $(INTEGRATION) $(ARGS) $(PKG)

unit: ## Run the tests that need no server
	$(GO) test -race $(ARGS) $(PKG)

bench: setup ## Run the benchmarks and print their tables
	$(GO) run ./benchmarks $(ARGS)

nines: ## Count stale copies in the simulation (ARGS='-copies=100000000 -seed=7')
	$(GO) test ./tests/simulation -run '^TestNines_NoCopyIsStale$$' -v -count=1 -timeout 0 $(ARGS)

lint: $(GOLANGCI) ## Run golangci-lint (built from source the first time: minutes)
	$(GOLANGCI) run $(PKG)

fmt: $(GOLANGCI) ## Format the source
	$(GOLANGCI) fmt $(PKG)

tidy-check: ## Fail when go.mod or go.sum is not tidy
	$(GO) mod tidy -diff

fuzz: ## Run each fuzz target for FUZZTIME
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' $$dir | grep '^Fuzz'); do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

cover: setup bin/testservers ## Measure the coverage of all tests together
	bin/testservers -- $(GO) test -tags integration -timeout 15m -p 2 -coverpkg=./... -coverprofile=coverage.out ./...
	$(GO) tool cover -func=coverage.out | tail -n 1

clean: ## Remove what the targets above made here (the cache folder stays)
	rm -rf bin coverage.out

# A built binary instead of go run: it passes on the exact exit code and signals.
.PHONY: bin/testservers
bin/testservers:
	@$(GO) build -o $@ ./internal/testenv/testservers

$(GOLANGCI):
	@mkdir -p $(@D)/new
	GOFLAGS= GOBIN=$(@D)/new $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(@D)/new/golangci-lint $@ && rmdir $(@D)/new
