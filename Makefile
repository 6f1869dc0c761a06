# omnifs: `make demo` installs what is missing, builds, mounts and draws; `make test` runs all tests.
# Variables: BUILD (folder), CC, SANITIZE (address, undefined, thread), PREFIX, DESTDIR.
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules
BUILD   ?= build
PREFIX  ?= /usr/local
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
AR      ?= ar
VERSION := $(shell cat VERSION)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
SANITIZE ?=

PKGS_ENGINE := libpcre2-8 libutf8proc jansson libcrypto
PKGS_MEDIA  := libpng libjpeg libwebp libwebpmux libwebpdemux libavcodec libavformat libavutil libswscale
PKGS_APP    := fuse3 sqlite3 chafa
PKG_CFLAGS  := $(shell pkg-config --cflags $(PKGS_ENGINE) $(PKGS_MEDIA) $(PKGS_APP) 2>/dev/null)
LIBS_ENGINE := $(shell pkg-config --libs $(PKGS_ENGINE) 2>/dev/null) -ldnnl -lm
LIBS        := $(shell pkg-config --libs $(PKGS_MEDIA) $(PKGS_APP) 2>/dev/null) -lgif -linih $(LIBS_ENGINE) -lpthread -ldl

is_clang := $(findstring clang,$(shell $(CC) --version 2>/dev/null | head -n1))
# One OpenMP runtime in the process: gcc's, which oneDNN's package uses too. clang builds run the
# engine's own kernels on one thread.
OPENMP   := $(if $(is_clang)$(findstring thread,$(SANITIZE)),,-fopenmp)
OPT      ?= -O3
CPPFLAGS += -D_GNU_SOURCE -Isrc -DOMNIFS_VERSION='"$(VERSION)"' -DFUSE_USE_VERSION=314
CFLAGS   += -std=c11 $(OPT) -g -fno-math-errno -Wall -Wextra -Wpedantic -Werror $(OPENMP) \
            $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
LDFLAGS  += $(OPENMP) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -Wl,--as-needed
# System headers with pedantic noise are not ours to fix.
SYS      := $(patsubst -I%,-isystem %,$(PKG_CFLAGS))

engine_src := $(sort $(shell find src/base src/engine -name '*.c'))
app_src    := $(sort $(shell find src/media src/safety src/store src/job src/fs src/cli -name '*.c'))
obj         = $(patsubst %.c,$(BUILD)/%.o,$(1))

all: $(BUILD)/omnifs $(BUILD)/libomni.a

$(BUILD)/libomni.a: $(call obj,$(engine_src))
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/libapp.a: $(call obj,$(app_src))
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/omnifs: $(BUILD)/src/main.o $(BUILD)/libapp.a $(BUILD)/libomni.a
	$(CC) $(LDFLAGS) -o $@ $(BUILD)/src/main.o $(BUILD)/libapp.a $(BUILD)/libomni.a $(LIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(SYS) $(CFLAGS) -MMD -MP -c -o $@ $<

# ---- unit tests: tests/FOLDER/test_NAME.c is one cmocka program ----
unit_src := $(sort $(wildcard tests/*/test_*.c))
unit_bin := $(patsubst tests/%.c,$(BUILD)/tests/%,$(unit_src))
helper_obj := $(call obj,$(sort $(wildcard tests/support/*.c)))
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(helper_obj) $(BUILD)/libapp.a $(BUILD)/libomni.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)
.SECONDARY:

unit-programs: $(unit_bin)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
