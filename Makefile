# Makefile - one file, top to bottom: settings, sources per room, rules, then targets in the order
# people type them. `make help` lists them. V=1 shows commands.

# ---- settings ------------------------------------------------------------------------------------
CC       ?= gcc
MUSL_CC  ?= musl-gcc
PREFIX   ?= /usr/local
B        ?= build
WARN      = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
# -ffp-contract=off: a fused multiply-add happens where the source says so and nowhere else.
CFLAGS    = -std=c17 -O2 -g -D_GNU_SOURCE -I. $(WARN) -ffp-contract=off -pthread $(SANFLAGS)
LDLIBS    = -lcjson -llzma -lzstd -lxxhash -lm
SANFLAGS ?=
ifeq ($(V),)
Q = @
endif

# ---- sources per room ----------------------------------------------------------------------------
KERNELS := $(wildcard kernels/*.c kernels/cpu/*.c)
MODEL   := $(wildcard model/*.c)
TRAINER := $(filter-out trainer/main.c,$(wildcard trainer/*.c))
PACKER  := $(filter-out packer/main.c,$(wildcard packer/*.c))
VERIFY  := $(filter-out verify/main.c,$(wildcard verify/*.c))
DECODE  := stub/lzma_dec.c stub/weights_dec.c
DATA    := trainer/data/shards.c
UNIT    := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*_test.c))

obj = $(patsubst %.c,$(B)/%.o,$(1))

BASE_O    := $(call obj,$(KERNELS) $(MODEL))
TRAINER_O := $(call obj,$(TRAINER))
PACKER_O  := $(call obj,$(PACKER) $(DECODE))
VERIFY_O  := $(call obj,$(VERIFY))

all: bin/trainer bin/packer bin/verify bin/shards   ## build everything into bin/

# ---- rules ---------------------------------------------------------------------------------------
$(B)/%_avx2.o: CFLAGS += -mavx2 -mfma
$(B)/%_avx512.o: CFLAGS += -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

bin/trainer: $(B)/trainer/main.o $(TRAINER_O) $(BASE_O)
bin/packer: $(B)/packer/main.o $(PACKER_O) $(TRAINER_O) $(BASE_O) $(B)/stub/embed.o
bin/verify: $(B)/verify/main.o $(VERIFY_O) $(PACKER_O) $(BASE_O) $(B)/stub/embed.o
bin/verify: LDLIBS += -lseccomp
bin/shards: $(B)/trainer/data/shards_main.o $(call obj,$(DATA)) $(BASE_O)

bin/%:
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $^ $(LDLIBS) -o $@

help:           ## this list
	@grep -hE '^[a-z0-9_-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

clean:          ## remove what make made
	rm -rf build bin out

.PHONY: all help clean
-include $(shell find $(B) -name '*.d' 2>/dev/null)
