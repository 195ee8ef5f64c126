# The short way to everything: each target names the scripts and CMake presets
# that do the work. `make` alone lists them.
#
# CAISSON_ASSETS  where QEMU, the guest kernel and the base image lie; see
#                 tools/setup/assets --help for the default
# PREFIX, DESTDIR where `make install` installs
# SUITE           the Debian release of `make test-package`
# FUZZ_SECONDS    how long `make fuzz` runs each fuzzer

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

export CAISSON_ASSETS := $(shell tools/setup/assets --where)

FUZZ_SECONDS ?= 60
CAISSON := build/release/bin/caisson

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 25

.PHONY: build
build: packages-build ## build build/release/bin/caisson
	@cmake --preset release
	@cmake --build --preset release --target programs

.PHONY: build-tests
build-tests: build
	@cmake --build --preset release

.PHONY: run
run: packages-build packages-run build assets prepare ## set everything up and run a first box
	@tools/setup/demo $(CAISSON)

.PHONY: test
test: packages-build packages-run packages-test build build-tests assets prepare ## build and run all tests
	@ctest --preset release --output-on-failure

.PHONY: test-nested
test-nested: packages-build packages-run packages-nested build assets ## prove the KVM path in an emulated machine (2 to 10 minutes)
	@tests/nested/run

.PHONY: test-two-sided
test-two-sided: packages-build packages-run packages-test build assets prepare ## take each security rule away and demand that a test notices
	@tests/two_sided/run

.PHONY: test-faults
test-faults: packages-build packages-run packages-test build build-tests assets prepare ## fail every n-th system call, and the power 2000 times (hours)
	@tests/faults/run

.PHONY: asan tsan
asan: packages-build packages-run packages-test assets ## build and test with AddressSanitizer and UBSan
tsan: packages-build packages-run packages-test assets ## build and test with ThreadSanitizer
asan tsan:
	@cmake --preset $@
	@cmake --build --preset $@
	@tools/setup/prepare build/$@/bin/caisson
	@ctest --preset $@ --output-on-failure

.PHONY: fuzz
fuzz: packages-build packages-develop ## run every fuzzer for FUZZ_SECONDS (60)
	@cmake --preset fuzz
	@cmake --build --preset fuzz
	@for fuzzer in build/fuzz/fuzz/*; do \
	    if [[ -f $$fuzzer && -x $$fuzzer ]]; then \
	        name=$${fuzzer##*/}; \
	        mkdir -p "build/fuzz/corpus/$$name"; \
	        echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
	        "$$fuzzer" -max_total_time=$(FUZZ_SECONDS) -artifact_prefix="build/fuzz/corpus/" \
	            "build/fuzz/corpus/$$name" "fuzz/corpus/$$name"; \
	    fi; \
	done

.PHONY: tidy
tidy: packages-build packages-develop ## check the sources with clang-tidy, the scripts with shellcheck
	@shellcheck -x tools/setup/{packages,assets,prepare,demo,uninstall,caisson-setup,*.sh} tools/setup/parts/*.sh tools/package/post* tests/install/debian_tree .ci/run bench/share-assets
	@cmake --preset tidy
	@cmake --build --preset tidy

.PHONY: format
format: packages-develop ## format the C++ sources
	@git ls-files -z '*.cc' '*.h' | xargs -0r clang-format -i

.PHONY: bench
bench: build packages-run packages-bench assets prepare ## measure starts, and boxes that run, beside podman, gVisor and bubblewrap
	@bench/start
	@bench/exec

PREFIX ?= /usr/local
SUITE ?= bookworm
DESTDIR ?=
INSTALLED ?= build/release/installed.txt

.PHONY: install
install: build ## install programs, library, documents below PREFIX (/usr/local), in DESTDIR
	@DESTDIR="$(DESTDIR)" cmake --install build/release --prefix "$(PREFIX)" --strip
	@cp build/release/install_manifest.txt "$(INSTALLED)"
	@if [[ -z "$(DESTDIR)" && $$EUID == 0 ]]; then ldconfig; fi

.PHONY: uninstall
uninstall: ## remove what the last `make install` installed; DESTDIR as then
	@tools/setup/uninstall "$(INSTALLED)" "$(DESTDIR)"

.PHONY: package
package: build packages-package ## make Debian packages in build/package
	@rm -rf build/package
	@cpack --config build/release/CPackConfig.cmake -B build/package >build/release/cpack.log || { cat build/release/cpack.log; exit 1; }
	@rm -rf build/package/_CPack_Packages
	@ls build/package/*.deb

# TREE_OPTIONS: see tests/install/debian_tree
.PHONY: test-package
test-package: package packages-run assets ## install, use and remove the package in a fresh tree of Debian SUITE (bookworm; root)
	@lintian --allow-root --fail-on error,warning build/package/*.deb
	@tests/install/debian_tree $(TREE_OPTIONS) $(SUITE) build/package

.PHONY: clean
clean: ## remove what builds made; keep assets
	@rm -rf build/{release,dev,asan,tsan,fuzz,tidy,package}

# The steps of set-up; each is quick and silent when there is nothing to do.
.PHONY: packages-build packages-run packages-test packages-develop packages-bench packages-nested packages-package
packages-build packages-run packages-test packages-develop packages-bench packages-nested packages-package: packages-%:
	@tools/setup/packages --for $*

.PHONY: assets
assets:
	@tools/setup/assets "$$CAISSON_ASSETS"

.PHONY: prepare
prepare:
	@tools/setup/prepare $(CAISSON)
