# omnifs: `make demo` installs what is missing, builds, mounts and draws; `make test` runs all tests;
# `make help` lists the rest.
# Variables: BUILD (folder), CC, SANITIZE (address, undefined, thread), OPT, PREFIX, DESTDIR, V=1
# (show commands).
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules
BUILD   ?= build
PREFIX  ?= /usr/local
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
# The C++ compiler that goes with CC: it compiles the kernels for the CPU, for tests.
CXX     := $(if $(filter default,$(origin CXX)),$(patsubst clang,clang++,$(patsubst gcc,g++,$(CC))),$(CXX))
AR      := $(if $(filter default,$(origin AR)),ar,$(AR))
VERSION := $(shell cat VERSION)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
SANITIZE ?=
V ?= 0
# $(call run,WORD) before a command: only WORD and the target are shown, all of it with V=1.
run      = $(if $(filter 0,$(V)),@printf '  %-5s %s\n' $(1) $@; )

PKGS_ENGINE := libpcre2-8 libutf8proc jansson libcrypto
PKGS_MEDIA  := libpng libjpeg libwebp libwebpmux libwebpdemux libavcodec libavformat libavutil libswscale
PKGS_APP    := fuse3 sqlite3 chafa
PKGS        := $(PKGS_ENGINE) $(PKGS_MEDIA) $(PKGS_APP)
PKG_CFLAGS  := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS_ENGINE := $(shell pkg-config --libs $(PKGS_ENGINE) 2>/dev/null) -ldnnl -lm
LIBS        := $(shell pkg-config --libs $(PKGS_MEDIA) $(PKGS_APP) 2>/dev/null) -lgif -linih $(LIBS_ENGINE) -lpthread -ldl

is_clang := $(findstring clang,$(shell $(CC) --version 2>/dev/null | head -n1))
# One OpenMP runtime in the process: gcc's, which oneDNN's package uses too. clang builds run the
# engine's own kernels on one thread. ThreadSanitizer knows nothing of libgomp's barriers.
OPENMP   := $(if $(is_clang)$(findstring thread,$(SANITIZE)),,-fopenmp)
OPT      ?= -O3
CPPFLAGS += -D_GNU_SOURCE -Isrc -DOMNIFS_VERSION='"$(VERSION)"' -DFUSE_USE_VERSION=314
# What a sanitizer puts between the lines makes gcc see variables that nobody set.
CFLAGS   += -std=c11 $(OPT) -g -fno-math-errno -Wall -Wextra -Wpedantic -Werror $(OPENMP) \
            $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all \
                $(if $(is_clang),,-Wno-maybe-uninitialized))
LDFLAGS  += $(OPENMP) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -Wl,--as-needed
# The CUDA backend is a library that finds the engine's functions in the program that opens it.
LDFLAGS  += -rdynamic -Wl,-rpath,'$$ORIGIN:$$ORIGIN/../lib/omnifs'
# System headers with pedantic noise are not ours to fix.
SYS      := $(patsubst -I%,-isystem %,$(PKG_CFLAGS))

engine_src := $(sort $(shell find src/base src/engine -name '*.c'))
app_src    := $(filter-out src/main.c $(engine_src),$(sort $(shell find src -name '*.c')))
obj         = $(patsubst %.c,$(BUILD)/%.o,$(1))

all: $(BUILD)/omnifs $(BUILD)/libomni.a

$(BUILD)/libomni.a: $(call obj,$(engine_src))
	@rm -f $@
	$(call run,ar)$(AR) rcs $@ $^
$(BUILD)/libapp.a: $(call obj,$(app_src))
	@rm -f $@
	$(call run,ar)$(AR) rcs $@ $^
$(BUILD)/omnifs: $(BUILD)/src/main.o $(BUILD)/libapp.a $(BUILD)/libomni.a
	$(call run,link)$(CC) $(LDFLAGS) -o $@ $(BUILD)/src/main.o $(BUILD)/libapp.a $(BUILD)/libomni.a $(LIBS)

$(BUILD)/%.o: %.c | have-packages
	@mkdir -p $(@D)
	$(call run,cc)$(CC) $(CPPFLAGS) $(SYS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Multiply-adds may round once in the CPU backend's loops: ISO mode would keep them apart. Nobody reads
# the flags of floating-point exceptions: loops with a choice in them become vectors.
$(BUILD)/src/engine/cpu/%.o: CFLAGS += -ffp-contract=fast -fno-trapping-math

# The commit is compiled into one file, which is rebuilt when the commit changes.
$(BUILD)/src/base/version.o: CPPFLAGS += -DOMNIFS_COMMIT='"$(COMMIT)"'
$(BUILD)/src/base/version.o: $(BUILD)/commit
$(BUILD)/commit: always
	@mkdir -p $(@D)
	@echo '$(VERSION) $(COMMIT)' | cmp -s - $@ || echo '$(VERSION) $(COMMIT)' >$@

# A missing library is said in words, before the compiler says it in pages.
have-packages:
	@command -v pkg-config >/dev/null || { echo 'pkg-config is missing: run `make deps` first' >&2; exit 1; }
	@pkg-config --print-errors --exists $(PKGS) || { echo 'libraries are missing: run `make deps` first' >&2; exit 1; }

# ---- what a machine needs (Debian 12 and its relatives) ----
deps:
	@scripts/deps build run
deps-test:
	@scripts/deps build run test fuzz

# ---- the CUDA backend: kernels/, compiled by nvcc for GPUs and by CXX for tests ----
kernel_src := $(sort $(wildcard kernels/*.cu))
kernel_c   := $(sort $(wildcard kernels/*.c))
NVCC       ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
# One library for all: A100, RTX 30, RTX 40 and L4, H100 and H200, B200, RTX 50; newer ones compile
# the last at the first start.
CUDA_ARCHS ?= 80 86 89 90 100 120
CUDA_GENCODE = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
               -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
NVCCFLAGS  ?= -O3
cuda_obj   := $(patsubst %.cu,$(BUILD)/cuda/%.o,$(filter-out %emulated.cu,$(kernel_src))) \
              $(patsubst %.c,$(BUILD)/cuda/%.o,$(kernel_c) src/base/symbols.c)
# Headers of cuBLASLt and cuDNN lie beside the toolkit's own; without them both are never used.
cuda_headers := $(if $(NVCC),-isystem $(abspath $(dir $(realpath $(NVCC)))../include))
emulated_obj := $(patsubst %.cu,$(BUILD)/emulated/%.o,$(filter-out %_cuda.cu,$(kernel_src))) \
                $(patsubst %.c,$(BUILD)/emulated/%.o,$(kernel_c)) \
                $(patsubst %.cc,$(BUILD)/emulated/%.o,$(sort $(wildcard kernels/*.cc)))
CXXFLAGS += -std=c++20 $(OPT) -g -fno-exceptions -fno-rtti -ftls-model=initial-exec -Wall -Wextra -Wpedantic -Werror -fPIC \
            $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)

cuda: $(BUILD)/libomni_cuda.so
have-nvcc:
	@[ -n "$(NVCC)" ] || { echo 'make cuda needs nvcc of the CUDA toolkit (13 or later), on PATH, in /usr/local/cuda/bin or as NVCC=' >&2; exit 1; }
$(BUILD)/cuda/%.o: %.cu | have-nvcc
	@mkdir -p $(@D)
	$(call run,nvcc)$(NVCC) -std=c++20 $(NVCCFLAGS) $(CUDA_GENCODE) -D_GNU_SOURCE -I. -Isrc \
	    -Xcompiler -fPIC,-fvisibility=hidden,-Wall -MMD -MP -c -o $@ $<
$(BUILD)/cuda/%.o: %.c
	@mkdir -p $(@D)
	$(call run,cc)$(CC) $(CPPFLAGS) -I. $(cuda_headers) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(BUILD)/libomni_cuda.so: $(cuda_obj) | have-nvcc
	$(call run,nvcc)$(NVCC) -shared -cudart static -o $@ $(cuda_obj)
# The kernels still compile, for one kind of GPU: what `make test` does where there is an nvcc that
# can.
nvcc_13 = $(if $(NVCC),$(shell $(NVCC) --version | grep -E 'release (1[3-9]|[2-9][0-9])\.'))
cuda-check:
	@$(if $(nvcc_13),$(MAKE) --no-print-directory BUILD=$(BUILD)/cuda-check CUDA_ARCHS=90 NVCCFLAGS='-O0 -Xcicc -O0 -Xptxas -O0' cuda,\
	    echo 'There is no nvcc of CUDA 13 or later: the CUDA backend is not compiled.')

$(BUILD)/emulated/%.o: %.cu
	@mkdir -p $(@D)
	$(call run,cxx)$(CXX) -D_GNU_SOURCE -I. -Isrc $(CXXFLAGS) -MMD -MP -x c++ -c -o $@ $<
$(BUILD)/emulated/%.o: %.cc
	@mkdir -p $(@D)
	$(call run,cxx)$(CXX) -D_GNU_SOURCE -I. -Isrc $(CXXFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/emulated/%.o: %.c
	@mkdir -p $(@D)
	$(call run,cc)$(CC) $(CPPFLAGS) -I. $(CFLAGS) -fPIC -MMD -MP -c -o $@ $<
# What device_open looks for, by the same name: LD_LIBRARY_PATH=build/emulated build/omnifs …
$(BUILD)/emulated/libomni_cuda.so: $(emulated_obj)
	$(call run,link)$(CXX) -shared -Wl,-soname,$(@F) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -o $@ $^

# ---- unit tests: tests/FOLDER/test_NAME.c is one cmocka program ----
# (ThreadSanitizer does not know the fibers of emulated kernels.)
unit_src := $(filter-out $(if $(findstring thread,$(SANITIZE)),tests/engine/test_cuda%),$(sort $(wildcard tests/*/test_*.c)))
unit_bin := $(patsubst tests/%.c,$(BUILD)/tests/%,$(unit_src))
# Programs that tests start: whatever else tests/e2e holds.
e2e_helpers := $(patsubst tests/%.c,$(BUILD)/tests/%,$(filter-out tests/e2e/test_%,$(wildcard tests/e2e/*.c)))
helper_obj := $(call obj,$(sort $(wildcard tests/support/*.c)))
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(helper_obj) $(BUILD)/libapp.a $(BUILD)/libomni.a
	$(call run,link)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)
$(BUILD)/tests/engine/test_cuda% $(BUILD)/tests/support/fake_cu%: CPPFLAGS += -I.
$(BUILD)/tests/engine/test_cuda%: LDFLAGS += -Wl,-rpath,'$$ORIGIN/../../emulated'
$(BUILD)/tests/engine/test_cuda%: $(BUILD)/tests/engine/test_cuda%.o $(helper_obj) $(BUILD)/emulated/libomni_cuda.so $(BUILD)/libapp.a $(BUILD)/libomni.a
	$(call run,link)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)
# Tests with fakes of their own: the first definition counts.
$(BUILD)/tests/fs/test_trigger: LDFLAGS += -Wl,-z,muldefs
# What tests open in the place of the NVIDIA driver's library.
fake_nvml := $(BUILD)/tests/support/nvml/fake_nvml.so
$(fake_nvml): tests/support/nvml/fake_nvml.c
	@mkdir -p $(@D)
	$(call run,cc)$(CC) -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Werror -shared -fPIC -o $@ $<
nvml_tests := base/test_gpus job/test_worker
$(nvml_tests:%=$(BUILD)/tests/%.o): CPPFLAGS += -DFAKE_NVML_LIBRARY='"$(abspath $(fake_nvml))"'
$(nvml_tests:%=$(BUILD)/tests/%): | $(fake_nvml)
.SECONDARY:

# Held to a GPU by tools/gpu-report; here it only has to compile.
$(BUILD)/tests/device/%: LDFLAGS += -Wl,-rpath,'$$ORIGIN/../..'
device_bin := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/device/*.c)))

unit-programs: $(unit_bin) $(e2e_helpers) $(device_bin) $(fake_nvml)

# ---- tests/FOLDER/test_NAME.sh drive the real program; $OMNIFS names it ----
test_scripts := $(sort $(wildcard tests/*/test_*.sh))

# ---- fuzz targets: tests/fuzz/fuzz_NAME.c, libFuzzer under ASan and UBSan, seeds in corpus/NAME ----
fuzz_src := $(sort $(wildcard tests/fuzz/fuzz_*.c))
fuzz_bin := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(fuzz_src))
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(helper_obj) $(BUILD)/libapp.a $(BUILD)/libomni.a
	$(call run,link)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ -lcmocka $(LIBS)
fuzz-programs: $(fuzz_bin)

FUZZ_BUILD := $(BUILD)-fuzz
FUZZ_MAKE  := $(MAKE) BUILD=$(FUZZ_BUILD) CC=clang SANITIZE=fuzzer-no-link,address,undefined OPT=-O1

# ---- all tests; the last line is `N passed, N failed` ----
FUZZ_RUNS ?= 20000
FUZZ_SECONDS ?= 20
test: deps-test
	@$(MAKE) --no-print-directory -j$(shell nproc) test-build cuda-check
	@BUILD=$(BUILD) FUZZ_BUILD=$(FUZZ_BUILD) FUZZ_RUNS=$(FUZZ_RUNS) FUZZ_SECONDS=$(FUZZ_SECONDS) \
	    tests/run unit scripts fuzz
test-build: all unit-programs
	+@$(FUZZ_MAKE) --no-print-directory fuzz-programs
# The suite without fuzzing, in this BUILD: what the sanitizer builds run.
check: all unit-programs
	@BUILD=$(BUILD) tests/run unit scripts

sanitizer = $(MAKE) BUILD=build-$@ SANITIZE=$(1) OPT=-O1 TEST_SLOWNESS=6 check
export TEST_SLOWNESS
asan: deps-test
	+$(call sanitizer,address)
ubsan: deps-test
	+$(call sanitizer,undefined)
tsan: deps-test
	+$(call sanitizer,thread)

# Long runs, by hand: an hour of fuzzing, an hour of jobs.
fuzz: deps-test
	+@$(FUZZ_MAKE) --no-print-directory fuzz-programs
	@BUILD=$(BUILD) FUZZ_BUILD=$(FUZZ_BUILD) FUZZ_RUNS=-1 FUZZ_SECONDS=$(or $(SECONDS),600) tests/run fuzz
soak: deps-test all
	@OMNIFS=$(BUILD)/omnifs scripts/soak $(or $(SECONDS),3600)

# Golden numbers from the original libraries (PyTorch, diffusers, transformers), in a venv; then pictures
# of checkpoints and requests that follow from SEEDS.
reference: all
	@OMNIFS=$(BUILD)/omnifs scripts/reference $(BUILD)-reference

# ---- to see it work ----
demo: deps
	@$(MAKE) --no-print-directory -j$(shell nproc) all
	@OMNIFS=$(BUILD)/omnifs scripts/demo demo
bench: all
	@$(BUILD)/omnifs bench

# ---- house-keeping ----
c_files := $(shell find src tests examples kernels -name '*.[ch]' 2>/dev/null) $(wildcard kernels/*.cu kernels/*.cc)
shell_files := $(wildcard scripts/* tools/*) tests/run .ci/run $(wildcard tests/*/*.sh)
man_pages := $(wildcard man/*.[1-8])
format:
	clang-format -i $(c_files)
lint:
	@clang-format --dry-run -Werror $(c_files)
	shellcheck $(shell_files)
	mandoc -Tlint -Wwarning $(man_pages)
	scripts/layers

# Compiles (does not link) everything for 64-bit Arm. Debian's library headers are the same text on
# both machines; they come last, so that the cross compiler's own libc is found first.
check-aarch64:
	@for f in $(engine_src) $(app_src) src/main.c; do \
	    aarch64-linux-gnu-gcc $(CPPFLAGS) -DOMNIFS_COMMIT='""' $(subst -isystem ,-idirafter ,$(SYS)) \
	        -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu \
	        $(CFLAGS) -fsyntax-only "$$f" || exit 1; \
	done; echo "everything compiles for aarch64"

# ---- install ----
bindir     = $(DESTDIR)$(PREFIX)/bin
sbindir    = $(DESTDIR)$(PREFIX)/sbin
sharedir   = $(DESTDIR)$(PREFIX)/share/omnifs
mandir     = $(DESTDIR)$(PREFIX)/share/man
libdir     = $(DESTDIR)$(PREFIX)/lib
includedir = $(DESTDIR)$(PREFIX)/include/omni
unitdir    = $(libdir)/systemd
completion = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
model_files := $(shell find models -type f 2>/dev/null)
fill       = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g'

install: all
	install -Dm755 $(BUILD)/omnifs $(bindir)/omnifs
	install -d $(sbindir)
	ln -sf ../bin/omnifs $(sbindir)/mount.omnifs
	ln -sf ../bin/omnifs $(sbindir)/mount.fuse.omnifs
	install -Dm644 registry.ini $(sharedir)/registry.ini
	for f in $(model_files); do install -Dm644 $$f $(sharedir)/$$f; done
	for f in share/safety/*; do install -Dm644 $$f $(sharedir)/safety/$${f##*/}; done
	for f in $(man_pages); do install -Dm644 $$f $(mandir)/man$${f##*.}/$${f##*/}; done
	install -d $(unitdir)/system $(unitdir)/user
	$(fill) share/systemd/omnifs@.service >$(unitdir)/system/omnifs@.service
	$(fill) share/systemd/omnifs-user.service >$(unitdir)/user/omnifs.service
	install -Dm644 share/completion/omnifs.bash $(completion)/omnifs
	if [ -e $(BUILD)/libomni_cuda.so ]; then install -Dm755 $(BUILD)/libomni_cuda.so $(libdir)/omnifs/libomni_cuda.so; fi
	install -Dm644 $(BUILD)/libomni.a $(libdir)/libomni.a
	install -Dm644 src/engine/omni.h $(includedir)/engine/omni.h
	install -Dm644 src/base/err.h $(includedir)/base/err.h
	install -Dm644 src/base/picture.h $(includedir)/base/picture.h
	install -d $(libdir)/pkgconfig
	$(fill) share/omni.pc >$(libdir)/pkgconfig/omni.pc

uninstall:
	rm -f $(bindir)/omnifs $(sbindir)/mount.omnifs $(sbindir)/mount.fuse.omnifs $(completion)/omnifs
	rm -f $(unitdir)/system/omnifs@.service $(unitdir)/user/omnifs.service
	rm -f $(libdir)/libomni.a $(libdir)/pkgconfig/omni.pc $(libdir)/omnifs/libomni_cuda.so
	rm -rf $(sharedir) $(includedir)
	for f in $(man_pages); do rm -f $(mandir)/man$${f##*.}/$${f##*/}; done

clean:
	rm -rf $(BUILD) $(BUILD)-fuzz $(BUILD)-reference build-asan build-ubsan build-tsan demo

help:
	@sed -n "s|^#H ||p" Makefile
#H make             build/omnifs and build/libomni.a
#H make deps        install the packages that building and running need (apt-get)
#H make demo        build, mount in a temporary place, draw one of each into demo/
#H make test        everything: unit tests, the real program, examples, bounded fuzzing
#H make check       the same without installing packages and without fuzzing
#H make asan|ubsan|tsan   `make check` in a sanitizer build
#H make fuzz|soak   long runs; SECONDS=n
#H make reference   compare with PyTorch, diffusers and transformers in a venv; SEEDS="1 2 3"
#H make bench       measure this machine
#H make install|uninstall   DESTDIR=, PREFIX=/usr/local
#H make cuda        build/libomni_cuda.so, the CUDA backend (nvcc of CUDA 13); make cuda-check: one arch
#H make format|lint|check-aarch64|clean

always:
.PHONY: all always have-packages deps deps-test unit-programs fuzz-programs test test-build check asan \
        ubsan tsan fuzz soak reference demo bench format lint check-aarch64 cuda cuda-check have-nvcc install uninstall \
        clean help

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
