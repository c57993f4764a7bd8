# SPDX-License-Identifier: GPL-2.0-only
#
# Every task of the project. "make" alone lists them.

# The releases of ScoutFS to do it for. VERSION and VERSIONS are two names of one
# variable: whichever is set reaches all programs as VERSIONS.
ifneq ($(and $(VERSION),$(VERSIONS)),)
ifneq ($(VERSION),$(VERSIONS))
$(error VERSION=$(VERSION) and VERSIONS=$(VERSIONS) mean the same: set one of them)
endif
endif
override VERSIONS := $(or $(strip $(VERSIONS)),$(strip $(VERSION)))
export VERSIONS
unexport VERSION # a kernel's own make would take it for the kernel's
# Exactly one of them, for tasks that are about one release.
one_version = $(if $(filter 1,$(words $(VERSIONS))),$(VERSIONS),$(error make $@: set VERSION to one release, such as VERSION=v1.30))

# The machine's kernel, for tasks that boot one.
KERNEL ?= debian11
unexport KERNEL # other tasks use all kernels
on_kernel = KERNEL='$(KERNEL)'

# Debian packages, by what needs them. DEPS=skip leaves out the check.
DEPS_BASE := binutils busybox-static gcc git make
DEPS_VM := bc e2fsprogs kmod libc6-dev libelf1 qemu-system-x86 socat xxd xz-utils
DEPS_LINT := shellcheck bc kmod libc6-dev libelf1 perl sparse xz-utils
DEPS_PACKAGES := createrepo-c patch rpm
DEPS_KMOD := dkms
DEPS_TEST := jq mmdebstrap rustc zsh $(DEPS_PACKAGES)
DEPS_SANITIZE := bison flex libelf-dev libssl-dev
DEPS_SCOUTFS := bison flex libblkid-dev libssl-dev sparse uuid-dev
# Real ScoutFS needs its own, the stand-in does not.
DEPS_FS := $(if $(SCOUTFS_SRC),$(DEPS_SCOUTFS))

need_source = [ -n "$(SCOUTFS_SRC)" ] || { echo "make $@: set SCOUTFS_SRC to a ScoutFS checkout or bare repository with its tags; its source is published as versity/scoutfs on GitHub" >&2; exit 1; }
deps = $(if $(filter skip,$(DEPS)),:,tests/deps.sh $(1))

# The folders of cmd/, of which some are Go modules of their own.
programs := $(wildcard cmd/*)
modules := $(patsubst %/go.mod,%,$(wildcard cmd/*/go.mod))

# Programs of the module in tests/, built into bin/ before they run.
tool = (cd tests && go build -o ../bin/$(1) $(2)) && bin/$(1)
series = $(call tool,series,./series)
packages = $(call tool,packages,./packages)
golangci = $(call tool,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
gotestsum = $(call tool,gotestsum,gotest.tools/gotestsum)

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s:\n", substr($$0, 5) } \
		/^[a-z0-9% -]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables, after the target or in the environment:"
	@printf '  %-27s %s\n' \
		SCOUTFS_SRC=folder 'checkout or bare repository of ScoutFS, with its tags' \
		VERSION=v1.30 'release of ScoutFS to do it for; if not set: all; demo: the newest; bench: v1.30; guest, sanitize, lifecycle: the stand-in' \
		VERSIONS='"v1.29 v1.30"' 'the same for several' \
		TEST=TestPoll 'guest, lifecycle, sanitize, test-rpm, test-screen, test-series: this test only, a regular expression' \
		KERNEL=debian12 'kernel of guest, soak and chaos: debian11 (if not set), debian12, debian12-backports' \
		DKMS_SRC=folder 'test, test-rpm: source of a dkms to try beside those of Debian' \
		EL_KERNEL_SRC=folder 'kernel-el: git repository with the source of kernels of the RHEL family' \
		KERNEL_DIR=folder 'kernel of your own for all machines, see docs/testing.md' \
		SCOUTFS_NOTIFY_CACHE=folder 'for downloads and builds, .cache if not set' \
		DEPS=skip 'leave out the check for Debian packages'

##@ Use

.PHONY: demo
demo: ## boot a machine, mount, and watch opens and reads stream by
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	@cd tests && go run ./demo $(if $(VERSIONS),-version $(one_version))

.PHONY: build
build: ## scoutfs-notifyd, scoutfs-notify and scoutfs-notify-index, into bin/
	for p in $(programs); do CGO_ENABLED=0 go -C $$p build -trimpath -o '$(CURDIR)/bin/' . || exit; done

.PHONY: hotpath
hotpath: ## print the instructions that the hooks add
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	cd tests && go test -count=1 -v ./hotpath

.PHONY: bench
bench: ## what observing costs, beside fanotify, inotify and eBPF, into docs/cost.svg: SCOUTFS_SRC=... [VERSION=v1.30 ONLY='by rate': those tables, no picture; PROFILE=1: who ran while a record waited]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	cd tests && go run ./bench $(if $(VERSIONS),-version $(one_version)) $(if $(value ONLY),-only '$(value ONLY)',-picture ../docs/cost.svg) $(if $(PROFILE),-profile)

.PHONY: bench-relay
bench-relay: ## the relay beside a loop of the same system calls, and its share of a processor, as root [BENCH=regexp]
	go test -run '^$$' -bench '$(or $(value BENCH),^Benchmark(Beside|Share)$$)' -benchtime 100x -timeout 30m ./daemon

.PHONY: bench-paths
bench-paths: ## what -paths takes at 50,000 records a second over 100,000 files, in file systems that answer late
	go -C cmd/scoutfs-notify test -run '^$$' -bench '^BenchmarkPaths$$' -benchtime 1x ./names

.PHONY: pictures
pictures: ## draw the pictures of the README anew, of an invented hour: look at them
	go -C cmd/scoutfs-notify test -count=1 -run '^TestReadme$$' ./picture -update

##@ Develop

.PHONY: check
check: lint ## lint and unit tests: after every change
	@$(MAKE) --no-print-directory --jobs=2 --output-sync check-product check-tools

.PHONY: check-product check-tools
check-product:
	for m in . $(modules); do go -C $$m test -failfast -timeout 2m ./... || exit; done
check-tools:
	cd tests && go test -count=1 -parallel=8 ./daemon ./docs ./kernels/el ./matrix ./packages ./upstream # they read files that go does not see

.PHONY: lint
lint: ## golangci-lint, shellcheck, and for C checkpatch, sparse and gcc's analyzer
	@$(call deps,$(DEPS_BASE) $(DEPS_LINT))
	$(golangci) run ./...
	for m in $(modules) tests tests/indexbench; do (cd $$m && '$(CURDIR)/bin/golangci-lint' run ./...) || exit; done
	@$(call tool,clint,./clint)
	shellcheck apply.sh .ci/run tests/*.sh tests/rpm/fake/*.sh tests/upstream/*.sh dkms/*.sh packaging/*.sh packaging/scripts/*.sh packaging/completion/*.bash

.PHONY: guest
guest: ## one test in a machine: TEST=TestPoll [KERNEL=debian12]; on real ScoutFS: VERSION=v1.30 SCOUTFS_SRC=...
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	@cd tests && $(on_kernel) GUEST_TESTS='^$(or $(TEST),$(error set TEST, such as TEST=TestPoll; tests/guest has them))$$' go test -count=1 -v -timeout 30m \
		-run '$(if $(VERSIONS),^TestScoutFS$$,^TestStandIn$$)' ./boot

.PHONY: test
test: lint ## every test that can run; says what it skipped and why
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_TEST) $(DEPS_FS))
	@cd tests && go run ./kernels
	$(gotestsum) --format testname --raw-command tests/all.sh

.PHONY: test-series
test-series: ## apply.sh, the series' tool and what reads patches/ [TEST=regexp]
	@$(call deps,$(DEPS_BASE))
	go test -count=1 $(if $(TEST),-run '$(TEST)') ./internal/series
	cd tests && go test -count=1 $(if $(TEST),-run '$(TEST)') ./series

.PHONY: test-rpm
test-rpm: ## packages by real dnf, dkms and systemd in a throw-away root [TEST=regexp]
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_TEST) $(DEPS_FS))
	cd tests && go test -count=1 -v -timeout $(if $(CUTS)$(STEPS),8h,80m) $(if $(TEST),-run '$(TEST)') ./rpm

.PHONY: test-screen
test-screen: ## the live screen of top in a terminal [TEST=regexp] [SCREEN=10m]
	cd tests && SCREEN=$(SCREEN) go test -count=1 -v -timeout 3h $(if $(TEST),-run '$(TEST)') ./screen

.PHONY: test-scoutfs
test-scoutfs: ## all checks on real ScoutFS: SCOUTFS_SRC=... [VERSIONS="v1.30 v1.33"]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	cd tests && go run ./matrix

.PHONY: test-upstream
test-upstream: ## upstream's own suite, unpatched and patched: VERSION=v1.30 SCOUTFS_SRC=... [ONLY=regexp] [FULL=1]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_TEST) $(DEPS_FS))
	cd tests && go run ./upstream -version $(one_version) $(if $(value ONLY),-only '$(value ONLY)') $(if $(FULL),-full)

.PHONY: soak
soak: ## load in a machine for SOAK=10m, 16 clients, sums checked
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	cd tests && $(on_kernel) SOAK=$(or $(SOAK),10m) GUEST_TESTS=TestSoak go test -count=1 -v -timeout 3h -run '^TestStandIn$$' ./boot

.PHONY: chaos
chaos: ## CHAOS=1000 random kills, umounts and crashes in a machine; SEED=N repeats
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	cd tests && $(on_kernel) CHAOS=$(or $(CHAOS),1000) SEED=$(SEED) GUEST_TESTS=TestChaos go test -count=1 -v -timeout 3h -run '^TestStandIn$$' ./boot

.PHONY: sanitize
sanitize: ## the guest's tests and RACE=2m of races on kernels with sanitizers; on real ScoutFS: VERSION=v1.33 SCOUTFS_SRC=... [KERNELS=kasan] [TEST=regexp] [SEED=N]; PLANT=all: find planted bugs
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_SANITIZE) $(DEPS_FS))
	$(call tool,sanitize,./sanitize) $(if $(KERNELS),-kernel '$(KERNELS)') $(if $(RACE),-race '$(RACE)') $(if $(TEST),-test '$(TEST)') $(if $(PLANT),-plant '$(PLANT)')

.PHONY: kernel-el
kernel-el: ## build a kernel of the RHEL family for KERNEL_DIR: EL=9 or 9.4 EL_KERNEL_SRC=...; or check each series for EL="8 9 10": COMPILE=1, or BOOT=1 to run the tests there, too: SCOUTFS_SRC=... [ONLY=hooks]
	@$(call deps,$(DEPS_BASE) $(DEPS_SANITIZE) bc kmod $(if $(COMPILE)$(BOOT),$(DEPS_SCOUTFS)) $(if $(BOOT),$(DEPS_VM) $(DEPS_TEST)))
	@$(call tool,el,./kernels/el) $(if $(COMPILE),-compile) $(if $(BOOT),-boot) $(if $(value ONLY),-only '$(value ONLY)') $(or $(EL),$(error set EL to a release, such as EL=9 or EL=9.4))

.PHONY: lifecycle
lifecycle: ## LIFE=200 times each what can leave a mount without its daemon, with systemd; on real ScoutFS: VERSION=v1.30 SCOUTFS_SRC=... [TEST=regexp]
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_TEST) $(DEPS_FS))
	cd tests && LIFE=$(or $(LIFE),200) GUEST_TESTS='$(or $(TEST),^TestLife)' go test -count=1 -v -timeout 8h -run '$(if $(VERSIONS),^TestSystemdScoutFS$$,^TestSystemd$$)' ./rpm

.PHONY: fuzz
fuzz: ## fuzz each parser for FUZZTIME=1m
	for m in . $(modules); do (cd $$m && '$(CURDIR)/tests/fuzz.sh' $(or $(FUZZTIME),1m)) || exit; done

.PHONY: clean
clean: ## delete bin/, dist/ and the cache of kernels and machines
	rm -rf bin dist .cache

.PHONY: bench-index
bench-index: ## what scoutfs-notify-index takes, beside SQLite [INODES=10000000 DIR=folder on the disk to measure]
	cd tests/indexbench && go run . -inodes $(or $(INODES),10000000) $(if $(DIR),-dir '$(DIR)')

.PHONY: index-rounds
index-rounds: ## INDEX_ROUNDS=10000 random kills of index, daemon and mount; SEED=N repeats
	INDEX_ROUNDS=$(or $(INDEX_ROUNDS),10000) go -C cmd/scoutfs-notify-index test -count=1 -v -timeout 8h -run '^TestKill$$' ./index

##@ Develop the series

.PHONY: series-check
series-check: ## form and sameness of the series, with SCOUTFS_SRC also that they apply
	$(series) check $(VERSIONS)

# The folder to build ScoutFS against.
kbuild = $$(cd tests && go run ./kernels -build)

.PHONY: rebase
rebase: ## carry a series to another release, or to main's tip: TO=v1.34|main SCOUTFS_SRC=... [FROM=v1.33] [RESTART=1]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	kbuild=$(kbuild) && $(series) rebase $(if $(FROM),-from $(FROM)) -to $(or $(TO),$(error set TO, such as TO=v1.34)) -kbuild "$$kbuild" $(if $(RESTART),-restart)

.PHONY: series
series: ## make all other series anew from one: FROM=v1.30 SCOUTFS_SRC=... [RESTART=1]
	@$(need_source)
	$(series) regenerate -from $(or $(FROM),$(error set FROM, such as FROM=v1.30)) $(if $(RESTART),-restart)

.PHONY: upstream-check
upstream-check: ## one line: do the series still fit upstream; carries that for main to its tip: SCOUTFS_SRC=...
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_VM) $(DEPS_FS))
	@kbuild=$(kbuild) && $(series) help >/dev/null || { echo "check failed: no kernel to build against, or no bin/series; what failed is above"; exit 2; }; \
	bin/series upstream-check -write -kbuild "$$kbuild"

##@ Package

# Variables of the command line reach the builder through the environment.

.PHONY: packages
packages: ## every package into dist/, with indexes for dnf and apt: SCOUTFS_SRC=... [COMPILE_CHECK=1]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_PACKAGES))
	$(packages) all $(VERSIONS)

.PHONY: kmod
kmod: ## compile every patched module with dkms: SCOUTFS_SRC=... [KVER=... KERNEL_SRC=...]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_KMOD))
	$(packages) kmod $(VERSIONS)

kmod-%: ## the same for one release: make kmod-v1.30
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_KMOD))
	$(packages) kmod $*

.PHONY: srpm rpm deb
srpm: ## source packages into dist/: SCOUTFS_SRC=...
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_PACKAGES))
	$(packages) srpm $(VERSIONS)

rpm: ## source packages and the packages built from them: SCOUTFS_SRC=... [COMPILE_CHECK=1]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_PACKAGES))
	$(packages) rpm $(VERSIONS)

deb: ## the module's packages for Debian: SCOUTFS_SRC=...
	@$(need_source)
	@$(call deps,$(DEPS_BASE))
	$(packages) deb $(VERSIONS)

.PHONY: notifyd
notifyd: ## the daemon's packages, rpm and deb
	@$(call deps,$(DEPS_BASE))
	$(packages) notifyd

.PHONY: index
index: ## the indexes of dist/ for dnf and apt
	@$(call deps,$(DEPS_BASE) $(DEPS_PACKAGES))
	$(packages) index

.PHONY: mock
mock: ## rebuild the source packages with mock: CHROOT=el8|el9|el10 SCOUTFS_SRC=... [COMPILE_CHECK=1]
	@$(need_source)
	@$(call deps,$(DEPS_BASE) $(DEPS_PACKAGES))
	$(packages) mock $(or $(CHROOT),$(error set CHROOT=el8, CHROOT=el9 or CHROOT=el10)) $(VERSIONS)

.PHONY: release
release: ## check that a release is due and tag it; DRY=1 checks only
	$(packages) release $(if $(DRY),-n)
