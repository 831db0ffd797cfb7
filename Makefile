# make help lists the targets. The one prerequisite is Go; what else the tests need comes from Debian's packages.
SHELL = /bin/bash
.SHELLFLAGS = -o pipefail -ec

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@latest
ARCHES = amd64 arm arm64 riscv64
# A number of runs, not a time: the fuzzer takes a time that is up for a failure now and then.
FUZZTIME ?= 10000x
# How long the tests of one package may take: several times what they need on a busy machine. Only a
# test that hangs reaches it.
LIMIT ?= -timeout 60m
# Where 32-bit tests run: host or vm. Empty: the machine is asked.
RUN386 ?=

DEMO_PACKAGES = dbus-daemon e2fsprogs
# gcc and libc6-dev: the race detector; libglib2.0-bin to shellcheck: the examples; the rest are the tools that tests compare with.
TEST_PACKAGES = $(DEMO_PACKAGES) gcc libc6-dev binutils man-db groff mandoc bash-completion u-boot-tools libubootenv-tool gdisk openssl systemd util-linux mount dmsetup \
	efibootmgr softhsm2 opensc zstd libglib2.0-bin polkitd libsystemd-dev pkg-config python3-jeepney shellcheck $(SEAL_PACKAGES) $(KIND_PACKAGES) $(C_PACKAGES)
# Their images are those that a sealed slot has to hide, and whose identity is read.
SEAL_PACKAGES = btrfs-progs xfsprogs erofs-utils cryptsetup-bin e2fsprogs f2fs-tools gfs2-utils nilfs-tools ntfs-3g
# What makes the files that are recognised by their first bytes.
KIND_PACKAGES = squashfs-tools xz-utils cpio fdisk dosfstools device-tree-compiler bzip2 btrfs-progs
# The C library is tried with two compilers, for three architectures, two of them emulated, and under valgrind.
C_PACKAGES = make g++ clang valgrind qemu-user gcc-arm-linux-gnueabihf libc6-dev-armhf-cross gcc-aarch64-linux-gnu libc6-dev-arm64-cross

DEB_PACKAGES = binutils git lintian mmdebstrap

# Debian's U-Boot is built from source: for the PC that QEMU is, and as a Linux process.
UBOOT_PACKAGES = gcc gcc-i686-linux-gnu libc6-dev dpkg-dev bison flex bc libssl-dev device-tree-compiler python3-dev python3-setuptools python3-pkg-resources swig xxd u-boot-tools
# UEFI of U-Boot, on 64-bit Arm.
ARM_PACKAGES = gcc-aarch64-linux-gnu libgnutls28-dev qemu-system-arm
VM_PACKAGES = $(UBOOT_PACKAGES) $(ARM_PACKAGES) qemu-system-x86 ovmf mmdebstrap mtools dosfstools e2fsprogs kmod systemd cpio
GUEST_PACKAGES = qemu-system-x86 mmdebstrap e2fsprogs kmod

BENCH_PACKAGES = dbus-daemon e2fsprogs util-linux mount coreutils diffutils openssl zstd cpio squashfs-tools rauc swupdate mender-client mender-artifact
BENCH ?=

# amd64 is below its limit of size because its functions are not aligned, which its instructions do
# not need. Those of the others do.
# a is the architecture in the loop of cross: there the shell does not see GOARCH yet.
FUNCALIGN = $$(test "$${a:-$$($(GO) env GOARCH)}" = amd64 && echo 1 || echo 8)
LDFLAGS = -s -w -funcalign $(FUNCALIGN) -X main.release=$(VERSION)
# What of the output of go test -v says how the stories went.
STORIES = grep --line-buffered -vE '^ *=== (RUN|PAUSE|CONT|NAME)'
# The size of the program: what is not ours, and not hot, is compiled without inlining. Of patterns the last one that matches counts.
# Ours that is hot: what moves the bytes of an image.
HOT = $(addprefix github.com/fwu-ab/fwu-ab/,zstdframe)
GCFLAGS = -gcflags=all=-l $(addprefix -gcflags=,$(addsuffix =,$(HOT) github.com/klauspost/compress/... crypto/internal/fips140/sha256))
# Without a stamp of git: a copy of the sources makes the same program.
# The garbage collector of before Go 1.26 serves a heap of some MiB as well, and is 40 kB smaller. Only
# that release has both.
EXPERIMENT = $(shell $(GO) env GOVERSION | grep -q '^go1\.26' && echo nogreenteagc)
BUILD = CGO_ENABLED=0 GOEXPERIMENT=$(EXPERIMENT) $(GO) build -tags made -buildvcs=false -trimpath -ldflags "$(LDFLAGS)" $(GCFLAGS)
MAXSIZE = 8388608

# Where make install puts things: below DESTDIR, as they will be found at PREFIX.
DESTDIR ?=
PREFIX ?= /usr
UNITDIR ?= $(PREFIX)/lib/systemd/system
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# Where program and pages are built. Two builds at the same time need two folders.
O ?= build
PROGRAM ?= $(O)/fwu-ab
# What pages and packages say of themselves: the commit, unless it is given. To Debian, ~ is before a version and + is after it.
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-rc/~rc/; s/-/+/g' | grep . || git log -1 --date=format:%Y%m%d --format=0~git%cd.%h 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# Whether the C library is installed too: yes or no, else if libsystemd is there.
PKG_CONFIG ?= pkg-config
CAPI ?= $(if $(shell $(PKG_CONFIG) --exists libsystemd 2>/dev/null && echo yes),yes,missing)
UNITS = fwu-ab fwu-ab-health fwu-ab-accept fwu-ab-reject fwu-ab-deadline
INSTALL = install -D -m 644

.PHONY: help docs lab cast build generate install place capi install-capi units sbom FORCE deb deb-test demo root test test-deep test-full check unit race 386 386-host 386-vm cross fuzz crash conformance vm vm-short vm-rest test-vm-full demo-vm audit bench clean demo-packages deb-packages test-packages vm-packages bench-packages

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## build build/fwu-ab
	$(BUILD) -o $(O)/fwu-ab ./cmd/fwu-ab

generate: ## man pages and completions in build/generated
	rm -rf $(O)/generated
	$(GO) run -tags generate ./cmd/fwu-ab generate $(O)/generated --version '$(VERSION)' --date $$(date -u -d @$(SOURCE_DATE_EPOCH) +%F)

install: build generate place ## install program, units, bus policy, man pages, completions and examples below DESTDIR; enable the units with systemctl preset

place:
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/fwu-ab
	for u in $(UNITS); do \
		install -d $(DESTDIR)$(UNITDIR); \
		sed 's#@bindir@#$(PREFIX)/bin#' systemd/units/$$u.service > $(DESTDIR)$(UNITDIR)/$$u.service; \
	done
	$(INSTALL) systemd/units/90-fwu-ab.preset -t $(DESTDIR)$(UNITDIR)-preset
	$(INSTALL) systemd/tmpfiles/fwu-ab.conf -t $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	for s in 1 5 8; do $(INSTALL) $(O)/generated/man$$s/* -t $(DESTDIR)$(PREFIX)/share/man/man$$s; done
	$(INSTALL) $(O)/generated/completions/fwu-ab.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fwu-ab
	$(INSTALL) $(O)/generated/completions/fwu-ab.zsh $(DESTDIR)$(ZSHDIR)/_fwu-ab
	$(INSTALL) $(O)/generated/completions/fwu-ab.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fwu-ab.fish
	$(INSTALL) share/dbus-1/system.d/*.conf -t $(DESTDIR)$(PREFIX)/share/dbus-1/system.d
	$(INSTALL) share/dbus-1/system-services/*.service -t $(DESTDIR)$(PREFIX)/share/dbus-1/system-services
	$(INSTALL) share/polkit-1/actions/*.policy -t $(DESTDIR)$(PREFIX)/share/polkit-1/actions
	$(INSTALL) share/fwu-ab.catalog -t $(DESTDIR)$(PREFIX)/lib/systemd/catalog
	$(INSTALL) share/uboot/* -t $(DESTDIR)$(PREFIX)/share/fwu-ab/uboot
	$(INSTALL) share/efi/* -t $(DESTDIR)$(PREFIX)/share/fwu-ab/efi
	$(INSTALL) README.md docs/*.md share/fwu-ab.toml.example -t $(DESTDIR)$(PREFIX)/share/doc/fwu-ab
	@case "$(CAPI)" in \
	yes) $(MAKE) install-capi;; \
	no) ;; \
	*) echo "without the C library: libsystemd was not found by $(PKG_CONFIG)";; \
	esac
	install -d $(DESTDIR)$(PREFIX)/lib/fwu-ab/check.d/required.d $(DESTDIR)$(PREFIX)/lib/fwu-ab/check.d/wanted.d
	install -d $(addprefix $(DESTDIR)$(PREFIX)/lib/fwu-ab/hooks.d/,pre-install.d post-install.d post-accept.d)

capi: ## build the C library, build/psa; needs a C compiler and libsystemd
	$(MAKE) -C psa O=$(CURDIR)/build/psa

install-capi: ## install the C library below DESTDIR: header, libraries, psa_fwu.pc; LIBDIR is the compiler's multiarch folder
	$(MAKE) -C psa install O=$(CURDIR)/build/psa DESTDIR=$(abspath $(DESTDIR)) PREFIX=$(PREFIX)

# What systemd-analyze security may say of each unit, in tenths. Reject and deadline use nothing that could fail to be set up; health runs other people's checks.
EXPOSURE = fwu-ab:15 fwu-ab-accept:15 fwu-ab-reject:31 fwu-ab-deadline:31 fwu-ab-health:66

units: ## the units as they are installed: no mistake, and no exposure above EXPOSURE
	rm -rf build/root
	$(MAKE) -s install O=build/units DESTDIR=$(CURDIR)/build/root
	for u in $(UNITS); do \
		sed -i 's#^ExecStart=/usr/bin/#ExecStart=$(CURDIR)/build/root/usr/bin/#' build/root/usr/lib/systemd/system/$$u.service; \
	done
	systemd-analyze verify --man=no $(addprefix build/root/usr/lib/systemd/system/,$(addsuffix .service,$(UNITS)))
	@for e in $(EXPOSURE); do \
		systemd-analyze security --offline=true --threshold=$${e#*:} --no-pager build/root/usr/lib/systemd/system/$${e%:*}.service | tail -1 || exit 1; \
	done

demo: demo-packages build ## a device goes through updates, a broken one, a power cut and forgeries; needs no root
	$(BUILD) -o build/demo ./test/demo
	./build/demo -fwu-ab build/fwu-ab

lab: demo-packages build ## a device in DIR (build/lab) to try an agent or a command on; takes reset, power-cut and boot; needs no root
	$(BUILD) -o build/fwu-lab ./test/lab/fwu-lab
	./build/fwu-lab -fwu-ab build/fwu-ab $(or $(DIR),build/lab)

cast: demo-packages build ## record docs/demo.svg, the picture in the README, from a real run
	$(BUILD) -o build/cast ./test/cast
	./build/cast -fwu-ab build/fwu-ab -o docs/demo.svg

docs: ## write the tables in docs that are made from the code
	FWUAB_UPDATE=1 $(GO) test -count=1 -run TestTableInTheDocumentation ./fwu

# The tiers. CONTRIBUTING.md has a table of them. SAMPLE selects the cases of the crash and the
# conformance suites, and the random cases of all other tests: another sample each day.
SAMPLE ?= $(shell date -u +%Y%m%d)

test: root test-packages vm-packages ## every package's tests, crash and conformance in a sample, two updates on each virtual machine, the demo; root
	@echo "make test: the sample is $(SAMPLE); SAMPLE=$(SAMPLE) repeats it"
	@SAMPLE=$(SAMPLE) test/suites 1 unit vm-short check units demo
	@echo "make test: passed"

test-deep: root test-packages vm-packages deb-packages ## crash in depth, conformance in full, race, 32 bits, fuzzing, packages, all core stories; root
	@test/suites 1 vm-rest race
	@test/suites 2 crash conformance 386 fuzz deb-test
	@echo "make test-deep: passed"

test-full: test test-deep test-vm-full ## everything; hours, root
	$(MAKE) crash CRASH=full

root:
	@test "$$(id -u)" = 0 || { echo "make test needs root: loop devices, mounts, virtual machines. Without root: make check demo, and $(GO) test ./..."; exit 1; }

check: ## formatting and static analysis
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt wants:"; echo "$$bad"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) run ./test/house
	$(GO) run $(STATICCHECK) ./...

unit: ## all tests; what only root can do, or needs a tool that is missing, fails rather than be left out
	FWUAB_TEST_ALL=1 FWUAB_SAMPLE=$(SAMPLE) RAPID_SEED=$(SAMPLE) $(GO) test -count=1 $(LIMIT) ./...

# With -short the random tests are fewer; make unit has all of them. TestStorm measures what a user can
# do to a service that is as fast as it is; its parts are tests of package dbus.
race: ## all tests under the race detector
	CGO_ENABLED=1 $(GO) test -race -count=1 $(LIMIT) -short -skip '^TestStorm$$' ./...

386: ## all tests as 32-bit programs: on this machine, or where it cannot, or with RUN386=vm, in a virtual machine
	@mkdir -p build
	$(GO) build -o build/run386 ./test/vm/run386
	@where='$(RUN386)'; test "$$where" || where=$$(build/run386 where); \
	echo "32-bit programs run here: $$where"; $(MAKE) --no-print-directory 386-$$where

386-host:
	CGO_ENABLED=0 GOARCH=386 $(GO) test -count=1 $(LIMIT) -short ./...

# The emulated machine takes twenty to fifty times as long, so the packages in which sizes and
# offsets are computed run there by default, with -short. VM386=./... runs all.
VM386 ?= ./bootctl/... ./bundle ./config ./fwu ./partition/... ./power ./suit ./systemd/... ./test/crash ./test/sim ./update ./zstdframe

386-vm: guest-packages
	@echo "in the virtual machine: $(VM386)"
	build/run386 vm $(GO) test -count=1 $(LIMIT) -short $(VM386)

cross: ## static programs for every architecture
	@for a in $(ARCHES); do \
		GOOS=linux GOARCH=$$a $(BUILD) -o build/fwu-ab-$$a ./cmd/fwu-ab || exit 1; \
		if readelf -l build/fwu-ab-$$a | grep -q INTERP; then echo "build/fwu-ab-$$a is not static"; exit 1; fi; \
		n=$$(stat -c %s build/fwu-ab-$$a); echo "fwu-ab-$$a: static, $$n bytes"; \
		if [ $$n -gt $(MAXSIZE) ]; then echo "build/fwu-ab-$$a has more than $(MAXSIZE) bytes"; exit 1; fi; \
	done

# Debian's names of architectures, and Go's.
DEBS = amd64:amd64 armhf:arm arm64:arm64 riscv64:riscv64

# The bill of materials of a program, with the modules and the Go release that the linker recorded in it.
SBOM = build/sbom -name fwu-ab -version '$(VERSION)'

build/sbom: FORCE
	$(GO) build -o $@ ./packaging/sbom

FORCE:

sbom: cross build/sbom ## bills of materials (CycloneDX) of the programs, and of the C library if it can be built
	for a in $(ARCHES); do $(SBOM) build/fwu-ab-$$a > build/fwu-ab-$$a.cdx.json || exit 1; done
	@if [ '$(CAPI)' = yes ]; then \
		$(MAKE) -s capi && build/sbom -name libpsa_fwu -version '$(VERSION)' build/psa/libpsa_fwu.so > build/libpsa_fwu.cdx.json; \
	else echo "without the C library: CAPI is $(CAPI)"; fi

deb: cross generate build/sbom ## build Debian packages, build/deb/*.deb
	rm -rf build/deb
	@for d in $(DEBS); do \
		$(MAKE) -s place DESTDIR=build/deb/$${d%:*} PROGRAM=build/fwu-ab-$${d#*:} ZSHDIR=/usr/share/zsh/vendor-completions CAPI=no; \
		$(SBOM) build/fwu-ab-$${d#*:} > build/deb/$${d%:*}/usr/share/doc/fwu-ab/fwu-ab.cdx.json || exit 1; \
		packaging/deb/build build/deb/$${d%:*} $${d%:*} '$(VERSION)' build/deb; \
	done

deb-test: deb-packages deb ## lintian, reproducibility, and an installation from first to last in a Debian root; needs root
	packaging/deb/test build/deb '$(VERSION)' $(filter $(shell dpkg --print-architecture):%,$(DEBS))

CRASH ?= deep
crash: ## power cuts, media that fail, and a way out of every state; CRASH=full is every case
	FWUAB_CRASH=$(CRASH) GOGC=400 $(GO) test -count=1 -v -timeout 240m ./test/crash/... | grep -vE '^(=== (RUN|PAUSE|CONT)|    --- PASS)'
	FWUAB_CRASH=$(CRASH) $(GO) test -count=1 -v -timeout 240m -run TestNoStateIsADeadEnd ./fwu

conformance: ## the tables and the walk of the specification, against the service in process and over D-Bus
	@mkdir -p build
	FWUAB_TEST_ALL=1 FWUAB_CONFORMANCE=full $(GO) test -count=1 -v -timeout 80m ./fwu/conformance > build/conformance.log 2>&1 || { grep -v '^ *=== ' build/conformance.log; exit 1; }
	@grep -E '^--- |conformance of TestService' build/conformance.log

# The stories of make test, which make test-deep does not tell again.
SHORT = ^(accepted|check_fails)$$
VM = FWUAB_VM=core $(GO) test -count=1 -v -timeout 120m

vm-short: vm-packages ## of make vm, an update that is accepted and one that is rolled back, on each kind of machine
	$(VM) -run 'TestCore/.*/$(SHORT)' ./test/vm | $(STORIES)

vm-rest: vm-packages ## of make vm, all but vm-short
	$(VM) -run 'TestCore|TestSandbox' -skip 'TestCore/.*/$(SHORT)' ./test/vm | $(STORIES)

vm: vm-packages ## virtual machines with real firmware, and the real U-Boot: the stories that every change is tested with; needs root
	$(VM) -run 'TestCore|TestSandbox' ./test/vm | $(STORIES)

test-vm-full: vm-packages ## the stories that make vm has no time for, and power cuts in disks and firmware variables; more than an hour
	FWUAB_VM=full $(GO) test -count=1 -v -timeout 600m -run 'TestFull|TestWatchdog|TestPowerCuts' ./test/vm | $(STORIES)

demo-vm: vm-packages ## updates on a virtual machine with UEFI firmware and systemd, with its console; a few minutes, needs root
	$(GO) run ./test/vm/demo

fuzz: ## every fuzz target for FUZZTIME
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
			echo "$$p $$f"; $(GO) test $(LIMIT) -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p > build/fuzz.log 2>&1 || { cat build/fuzz.log; exit 1; }; \
		done; \
	done

bench: bench-packages build ## benchmarks, and a comparison with dd, RAUC, SWUpdate and Mender; needs root; BENCH="-write" for docs/performance.md
	$(GO) test $(LIMIT) -run '^$$' -bench . -benchmem ./...
	$(GO) run ./bench $(BENCH)

# Exit code 3 is a verdict; any other says that there is none.
audit: ## known vulnerabilities; needs a network
	@mkdir -p build
	GOBIN=$(CURDIR)/build $(GO) install $(GOVULNCHECK)
	@code=0; build/govulncheck ./... || code=$$?; case $$code in 0) ;; \
		3) echo "make audit: known vulnerabilities, see above"; exit 1;; \
		*) echo "make audit: NO VERDICT, because the vulnerability database could not be read, see above"; exit 1;; \
	esac

clean: ## remove what was built
	rm -rf build

# Debian's packages: installed by root, else the missing ones are named.
define need
	@missing=; for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then \
			apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
		else \
			echo "missing packages; as root: apt-get install$$missing"; exit 1; \
		fi; \
	fi
endef

demo-packages:
	$(call need,$(DEMO_PACKAGES))

bench-packages:
	$(call need,$(BENCH_PACKAGES))

vm-packages:
	$(call need,$(VM_PACKAGES))

guest-packages:
	$(call need,$(GUEST_PACKAGES))

deb-packages:
	$(call need,$(DEB_PACKAGES))

test-packages:
	$(call need,$(TEST_PACKAGES))
