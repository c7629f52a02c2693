# Makefile - one file, top to bottom: settings, sources per room, rules, then targets in the order
# people type them. `make help` lists them. V=1 shows commands.

# ---- settings ------------------------------------------------------------------------------------
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
MUSL_CC ?= musl-gcc
PREFIX  ?= /usr/local
THREADS ?= $(shell nproc)
B       ?= build
BIN     ?= bin
WARN     = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
# -ffp-contract=off: a fused multiply-add happens where the source says so and nowhere else.
CFLAGS   = -std=c17 -O2 -g -D_GNU_SOURCE -I. $(WARN) -ffp-contract=off -pthread $(SAN)
LDLIBS   = -lcjson -lzip -lbrotlienc -lbrotlidec -llzma -lzstd -lz -lbz2 -lxxhash -lnettle -lseccomp -lm
SAN     ?=
# CUDA where there is an nvcc; CUDA=0 leaves it out. Real code for the cards that nvcc knows, and PTX
# of the newest for those to come. cuBLASLt is opened at run time, by the backend itself.
NVCC    ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA    ?= $(if $(NVCC),1,0)
ifeq ($(CUDA),1)
NVCC_KNOWS := $(shell $(NVCC) --list-gpu-arch)
# test-gpu and bench-gpu compile for the card at hand only, which saves minutes.
CUDA_CARD  := $(if $(filter test-gpu bench-gpu,$(MAKECMDGOALS)),$(shell nvidia-smi --query-gpu=compute_cap \
              --format=csv,noheader 2>/dev/null | head -n 1))
CUDA_ARCH  ?= $(or $(if $(filter 8.%,$(CUDA_CARD)),80),$(if $(filter 9.0,$(CUDA_CARD)),90a),\
              $(if $(filter 10.%,$(CUDA_CARD)),100),\
              $(if $(findstring compute_80,$(NVCC_KNOWS)),80) $(if $(findstring compute_90,$(NVCC_KNOWS)),90a) \
              $(if $(findstring compute_100,$(NVCC_KNOWS)),100))
NVCC_FLAGS  = -std=c++17 -O2 -I. -Werror all-warnings -t 0 \
              $(foreach a,$(CUDA_ARCH),-gencode=arch=compute_$(a),code=sm_$(a)) \
              -gencode=arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH)) \
              $(if $(filter 90a,$(CUDA_ARCH)),-DCUDA_HAS_SM90A) \
              -Xcompiler -Wall,-Wextra,-Werror,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
LDLIBS_CUDA = -L$(dir $(NVCC))../lib64 -lcudart_static -lrt -ldl
LDLIBS     += $(LDLIBS_CUDA)
# NCCL, which joins the cards of several processes, where its header is; the library is opened at run time.
NCCL       ?= $(if $(wildcard $(addsuffix /nccl.h,$(dir $(NVCC))../include /usr/include /usr/local/include)),1,0)
$(if $(filter 1,$(NCCL)),,$(info no NCCL: there is no nccl.h (libnccl-dev); one process has one card))
else
$(info no CUDA: $(if $(NVCC),left out,there is no nvcc); --device cuda will say so)
endif
# MPI where there is an mpicc (Open MPI's); MPI=0 leaves it out: processes of one job then meet over TCP.
MPI ?= $(if $(shell command -v mpicc),1,0)
ifeq ($(MPI),1)
MPI_CFLAGS ?= $(patsubst -I%,-isystem %,$(shell mpicc --showme:compile))
LDLIBS_MPI ?= $(shell mpicc --showme:link)
LDLIBS     += -Wl,--push-state,--as-needed $(LDLIBS_MPI) -Wl,--pop-state
else
$(info no MPI: $(if $(shell command -v mpicc),left out,there is no mpicc); several processes meet over TCP only)
endif
ifeq ($(V),)
Q = @
endif
# Compile on all cores; tests run one after another inside their recipes.
MAKEFLAGS += --jobs=$(shell nproc)

# Debian packages: to build, to run the demo, to run the tests.
DEPS      := gcc libc6-dev musl-tools libcjson-dev liblzma-dev libzstd-dev libxxhash-dev nettle-dev \
             libseccomp-dev libzip-dev libbrotli-dev zlib1g-dev libbz2-dev xz-utils bzip2 zstd sentencepiece
DEPS_DEMO := dict-gcide bible-kjv bible-kjv-text debian-handbook
DEPS_TEST := g++ libcmocka-dev curl python3-minimal libxml2-utils openmpi-bin libopenmpi-dev procps iproute2

.DEFAULT_GOAL := all

# ---- sources per room ----------------------------------------------------------------------------
KERNELS := $(wildcard kernels/*.c kernels/cpu/*.c)
ifeq ($(CUDA),1)
KERNELS := $(filter-out kernels/cuda_none.c,$(KERNELS))
CUDA_O  := $(patsubst %.cu,$(B)/obj/%.cu.o,$(wildcard kernels/cuda/*.cu))
endif
MODEL   := $(wildcard model/*.c)
TRAINER := $(filter-out trainer/main.c $(if $(filter 1,$(MPI)),trainer/comm_mpi_none.c,trainer/comm_mpi.c) \
           $(if $(filter 1,$(NCCL)),trainer/comm_nccl_none.c),$(wildcard trainer/*.c))
NCCL_O  := $(if $(filter 1,$(NCCL)),$(B)/obj/trainer/comm_nccl.cu.o)
PACKER  := $(filter-out packer/main.c,$(wildcard packer/*.c))
VERIFY  := $(filter-out verify/main.c,$(wildcard verify/*.c))
DECODE  := stub/lzma_dec.c stub/weights_dec.c stub/xxh64.c
DATA    := trainer/data/shards.c
PARITY  := $(wildcard tests/parity/*.c)
UNIT    := $(wildcard tests/unit/*_test.c)

SOURCES := Makefile README.md $(wildcard kernels/cuda/* $(addsuffix /*.[chS],kernels kernels/* model trainer trainer/data \
           packer stub verify) stub/*.ld stub/*.cu stub/*.awk trainer/*.cu trainer/data/*.sh trainer/data/*.awk recipes/* man/* completion/* docs/*.md)

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
# Everything but the programs' main functions; what a program does not use is not linked into it.
LIB := $(B)/libpgolf.a
$(LIB): $(call obj,$(KERNELS) $(MODEL) $(TRAINER) $(PACKER) $(VERIFY) $(DECODE) $(DATA)) $(CUDA_O) $(NCCL_O) $(B)/stub/embed.o
PROGRAMS := $(BIN)/trainer $(BIN)/packer $(BIN)/verify $(BIN)/shards

all: $(PROGRAMS)        ## build everything (the default)

# ---- rules ---------------------------------------------------------------------------------------
AVX2   := -mavx2 -mfma
AVX512 := -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma
$(B)/obj/%_avx2.o: CFLAGS += $(AVX2)
$(B)/obj/%_avx512.o: CFLAGS += $(AVX512)
$(B)/obj/trainer/comm_mpi.o: CFLAGS += $(MPI_CFLAGS)

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/%.cu.o: %.cu $(B)/cuda_arch
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCC_FLAGS) -MMD -MP -c $< -o $@

# Which cards the objects are for; compiled again when that changes.
$(B)/cuda_arch: always
	@mkdir -p $(@D)
	$(Q)echo $(CUDA_ARCH) | cmp -s - $@ || echo $(CUDA_ARCH) >$@

$(LIB):
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BIN)/trainer: $(B)/obj/trainer/main.o
$(BIN)/packer: $(B)/obj/packer/main.o
$(BIN)/verify: $(B)/obj/verify/main.o
$(BIN)/shards: $(B)/obj/trainer/data/shards_main.o
$(PROGRAMS): $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(filter %.o,$^) $(LIB) $(LDLIBS) -o $@

# ---- what ships inside a submission: loader and runner -------------------------------------------
# Forward pass only, musl, optimised for size: every byte is counted against the 16,000,000.
SIZE := -std=c17 -Os -D_GNU_SOURCE -I. $(WARN) -ffp-contract=off -fno-asynchronous-unwind-tables \
        -fno-stack-protector -fno-math-errno -fno-pie -fno-ivopts -fno-inline-functions-called-once -fno-gcse -fno-caller-saves -DNDEBUG -fno-ident -flto -include stub/runner_rt.h \
        -fno-tree-scev-cprop -fno-if-conversion -fno-schedule-insns2 -fno-peephole2 -fno-tree-dse \
        -fno-shrink-wrap -fno-tree-bit-ccp -fno-tree-loop-im -fno-move-loop-invariants -fno-tree-sink \
        -fno-expensive-optimizations -fno-rerun-cse-after-loop -fno-optimize-sibling-calls \
        -fno-tree-tail-merge -mstringop-strategy=rep_byte -fno-tree-loop-distribute-patterns \
        -fno-tree-loop-optimize -fno-jump-tables --param min-crossjump-insns=2 -mno-red-zone --param max-combine-insns=2 \
        -fno-tree-slsr -fno-tree-fre -fno-ipa-bit-cp -fno-lra-remat -fno-tree-pta -ffinite-loops -fno-defer-pop
RUNNER := stub/runner.c stub/runner_rt.c stub/weights_dec.c $(wildcard kernels/cpu/*.c) \
          $(addprefix model/,bytes.c gpt.c gpt_load.c graph.c graph_plan.c graph_run.c recipe_check.c \
          score.c shard.c slot.c tensor.c text.c window.c)
RUNNER_O := $(RUNNER:%.c=$(B)/musl/%.o)
# The full runner trains as well (--eval ttt); packer takes it where the recipe asks for that.
FULL_O := $(RUNNER:%.c=$(B)/full/%.o) $(B)/full/model/ttt.o
# And one with the decoders of lzma and range, for weights that were packed so on request.
ANY_O := $(filter-out %/weights_dec.o,$(FULL_O)) $(B)/any/stub/weights_dec.o $(B)/any/stub/lzma_dec.o
%_avx2.o: SIZE += $(AVX2)
%_avx512.o: SIZE += $(AVX512)
# Two of the options above cost bytes in some files.
sized = $(foreach r,musl full any card,$(1:%=$(B)/$(r)/%.o))
$(call sized,$(addprefix model/graph,_plan _run) model/graph stub/runner_rt): SIZE += -finline-functions-called-once
$(call sized,$(addprefix kernels/cpu/,isa_once dispatch pool math64)): SIZE += -fgcse

# The loader is assembly throughout, in the dialect of gcc.
LOADER_CC ?= gcc
LOADER_FLAGS := -std=c17 -ffreestanding -fno-builtin -nostdlib -static -fno-pic \
    -fno-asynchronous-unwind-tables -fno-stack-protector -fcf-protection=none -fomit-frame-pointer \
    -mgeneral-regs-only $(WARN) -I. -Wl,-no-pie -Wl,-T,stub/loader.ld,--oformat,binary,--build-id=none

$(B)/musl/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) $(SIZE) -DKERN_FORWARD_ONLY -DWEIGHTS_CM_ONLY -ffunction-sections -fdata-sections -MMD -MP -c $< -o $@

$(B)/full/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) $(SIZE) -DKERN_NO_OPTIM -DWEIGHTS_CM_ONLY -ffunction-sections -fdata-sections -MMD -MP -c $< -o $@

$(B)/any/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) $(SIZE) -DKERN_NO_OPTIM -ffunction-sections -fdata-sections -MMD -MP -c $< -o $@

# The runner of --runner cuda (stub/cuda.h) is the one for every codec and what opens a card.
CUDA_RUNNER_O := $(filter-out %/stub/runner.o %/model/ttt.o,$(ANY_O)) $(B)/card/model/ttt.o \
                 $(addprefix $(B)/card/stub/,runner.o cuda_start.o cuda_kern.o cuda_train.o cuda_dyn.o)
$(B)/card/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) $(SIZE) -DRUNNER_CUDA -DKERN_NO_OPTIM -ffunction-sections -fdata-sections -MMD -MP -c $< -o $@

$(B)/card/%.o: %.S
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) -c $< -o $@

# Its kernels as PTX, which every card from sm_80 on runs; nothing where there is no nvcc. ptxas says whether the
# text is what it claims to be.
PTX_TOOLS := $(addprefix $(B)/stub/,ptx_registers ptx_words)
$(PTX_TOOLS): $(B)/stub/%: stub/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $< -o $@

$(B)/stub/cuda.ptx: stub/cuda_kernels.cu stub/cuda_ptx.awk kernels/kernels.h $(wildcard kernels/cuda/*) \
                    $(if $(filter 1,$(CUDA)),$(PTX_TOOLS))
	@mkdir -p $(@D)
ifeq ($(CUDA),1)
	$(Q)$(NVCC) -std=c++17 -O2 -I. -Werror all-warnings -arch=compute_80 -ptx $< -o $@.all
	$(Q)awk -f stub/cuda_ptx.awk $@.all >$@.long && $(B)/stub/ptx_registers <$@.long >$@.short
	$(Q)$(dir $(NVCC))ptxas -arch sm_80 -o $@.sm_80 $@.short && $(B)/stub/ptx_words <$@.short >$@.new && mv $@.new $@
else
	$(Q): >$@
endif

# Linked with its symbols, which `make size` reads, and then reduced to what is loaded.
$(B)/stub/runner.symbols: $(RUNNER_O)
$(B)/stub/runner_full.symbols: $(FULL_O)
$(B)/stub/runner_any.symbols: $(ANY_O)
$(B)/stub/runner_cuda.symbols: $(CUDA_RUNNER_O)
$(B)/stub/%.symbols: stub/runner.ld
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) -nostartfiles -static -no-pie $(SIZE) -flto-partition=none \
	    -Wl,--gc-sections,--build-id=none,-T,stub/runner.ld $(filter %.o,$^) -o $@

$(B)/stub/runner%: $(B)/stub/runner%.symbols
	$(Q)objcopy -O binary $< $@ && chmod +x $@
$(B)/stub/runner: $(B)/stub/runner.symbols
	$(Q)objcopy -O binary $< $@ && chmod +x $@

$(B)/stub/loader: stub/loader.c stub/loader.ld stub/code_dec.S stub/code_dec.h stub/xxh64.S stub/xxh64.h stub/start.S stub/tiny.h stub/format.h
	@mkdir -p $(@D)
	$(Q)$(LOADER_CC) $(LOADER_FLAGS) stub/loader.c -o $@ && chmod +x $@

# The sources as they are, for `packer pack --with-source`: fixed order, owners and times.
$(B)/stub/source.tar: $(SOURCES)
	@mkdir -p $(@D)
	$(Q)tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rw,go=r \
	    -cf $@ $(SOURCES)

$(B)/stub/embed.o: stub/embed.S $(B)/stub/loader $(B)/stub/runner $(B)/stub/runner_full $(B)/stub/runner_any \
                   $(B)/stub/runner_cuda $(B)/stub/cuda.ptx $(B)/stub/source.tar
	$(Q)$(CC) -Wa,-I$(B) -c $< -o $@

# ---- targets -------------------------------------------------------------------------------------
demo: deps-demo all     ## text to verified submission in 5 minutes; TEXT=FILE: your own text
	$(Q)TEXT="$(TEXT)" THREADS=$(THREADS) sh recipes/demo.sh

test: deps-test check   ## install what the tests need, then run them all

check:                  ## unit, parity, end-to-end tests, and the units under sanitizers
	$(Q)for t in all unit parity emu e2e asan; do $(MAKE) --no-print-directory $$t || exit 1; done

# Programs of test-gpu and bench-gpu: without packer and verify only three libraries are left. Where their headers are
# not, stand-ins of tests/gpu/alone take their place (ALONE=1), so g++ and the CUDA toolkit are enough.
ALONE_H := cjson/cJSON.h xxhash.h cmocka.h
ALONE   ?= $(if $(strip $(foreach h,$(ALONE_H),$(if $(wildcard /usr/include/$(h) /usr/local/include/$(h)),,$(h)))),1,0)
GPU_T   := $(addprefix $(B)/tests/gpu/,ops_test train_test parity trainer corpus score_test $(if $(NCCL_O),comm_test))
ifeq ($(ALONE),1)
# What includes one of the headers is compiled apart from what the library is for.
alone   = $(patsubst $(B)/obj/%,$(B)/alone/%,$(1))
GPU_LIB := $(B)/alone/libgpu.a
GPU_L   := -lm
else
alone   = $(1)
GPU_LIB := $(B)/libgpu.a
GPU_L   := -lcjson -lxxhash -lcmocka -lm
endif
GPU_A   := $(call obj,model/safetensors.c trainer/hash.c)
LDLIBS_GPU = $(GPU_L) $(LDLIBS_CUDA) -Wl,--push-state,--as-needed $(LDLIBS_MPI) -Wl,--pop-state

$(B)/alone/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -Itests/gpu/alone -MMD -MP -c $< -o $@

$(GPU_LIB): $(filter-out $(GPU_A),$(call obj,$(KERNELS) $(MODEL) $(TRAINER))) $(CUDA_O) $(NCCL_O) \
            $(call alone,$(GPU_A)) $(if $(filter 1,$(ALONE)),$(B)/alone/tests/gpu/alone/cjson.o)
	$(Q)rm -f $@ && mkdir -p $(@D) && $(AR) rcs $@ $^

$(B)/tests/gpu/ops_test: $(call obj,$(wildcard tests/gpu/ops*.c))
$(B)/tests/gpu/train_test $(B)/tests/gpu/comm_test: $(B)/tests/gpu/%: $(call alone,$(B)/obj/tests/gpu/emu/%.o)
$(B)/tests/gpu/parity: $(call alone,$(call obj,tests/parity/tokenizer.c)) \
                       $(call obj,$(filter-out %/tokenizer.c %/ptz.c,$(PARITY)) tests/gpu/alone/ptz.c)
$(B)/tests/gpu/trainer: $(B)/obj/trainer/main.o
$(B)/tests/gpu/corpus $(B)/tests/gpu/score_test: $(B)/tests/gpu/%: $(B)/obj/tests/gpu/%.o
$(GPU_T): $(GPU_LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(filter %.o,$^) $(GPU_LIB) $(LDLIBS_GPU) -o $@

# The CUDA backend on the CPU (tests/gpu/emu/README.md): device code as C++, with an emulator that checks
# every access. -fsanitize=thread makes the calls it hangs on; the library of that name is not linked.
CXX       ?= g++
EMU_FLAGS := -std=c++17 -g -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unknown-pragmas -ffp-contract=off -Itests/gpu/emu -I.
EMU_HOST  := -O2
EMU_CU    := -O1 -DCUDA_EMULATED -DCUDA_HAS_SM90A -D__CUDACC__ -fno-threadsafe-statics -fno-strict-aliasing \
             -fsanitize=thread,undefined -fno-sanitize-recover=all
EMU_O     := $(patsubst tests/gpu/emu/%.cc,$(B)/emu/%.o,$(filter-out %_test.cc,$(wildcard tests/gpu/emu/*.cc)))
EMU_CU_O  := $(patsubst kernels/cuda/%.cu,$(B)/emu/cuda/%.o,$(wildcard kernels/cuda/*.cu))
EMU_T     := $(addprefix $(B)/emu/,ops_test train_test whole_test full_test faults_test comm_test)

$(B)/emu/%.o: tests/gpu/emu/%.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) $(EMU_FLAGS) $(EMU_HOST) -MMD -MP -c $< -o $@

$(B)/emu/cuda/%.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	$(Q)$(CXX) $(EMU_FLAGS) $(EMU_CU) -MMD -MP -c -x c++ $< -o $@

$(B)/emu/comm_nccl.o: trainer/comm_nccl.cu
	@mkdir -p $(@D)
	$(Q)$(CXX) $(EMU_FLAGS) $(EMU_HOST) -MMD -MP -c -x c++ $< -o $@

$(B)/emu/faults_test.o: EMU_HOST = $(EMU_CU)
$(B)/emu/faults_test: $(B)/emu/faults_test.o $(EMU_O)
$(B)/emu/ops_test: $(call obj,$(wildcard tests/gpu/ops*.c) $(addprefix model/,graph.c graph_half.c graph_join.c graph_plan.c graph_run.c graph_train.c graph_xsa.c) \
                   $(filter-out kernels/cuda_none.c,$(wildcard kernels/*.c kernels/cpu/*.c)))
$(B)/emu/train_test $(B)/emu/whole_test $(B)/emu/full_test: $(B)/emu/%: $(B)/obj/tests/gpu/emu/%.o
$(B)/emu/comm_test: $(B)/obj/tests/gpu/emu/comm_test.o
$(B)/emu/trainer: $(B)/obj/trainer/main.o
$(B)/emu/score_test: $(B)/obj/tests/gpu/score_test.o
$(B)/emu/parity: $(call obj,$(PARITY))
$(B)/emu/verify: $(B)/obj/verify/main.o
$(B)/emu/ops_test: $(EMU_O) $(EMU_CU_O)
$(B)/emu/train_test $(B)/emu/whole_test $(B)/emu/full_test $(B)/emu/comm_test $(B)/emu/trainer $(B)/emu/verify $(B)/emu/parity $(B)/emu/score_test: $(EMU_O) $(EMU_CU_O) $(B)/emu/comm_nccl.o $(LIB)
$(EMU_T) $(B)/emu/trainer $(B)/emu/verify $(B)/emu/parity $(B)/emu/score_test:
	@mkdir -p $(@D)
	$(Q)$(CXX) -g -pthread -fsanitize=undefined $^ -lcmocka $(LDLIBS) -o $@

# The library of the driver, for the runner of --runner cuda, on the same emulated card (tests/gpu/driver).
DRIVER_O := $(addprefix $(B)/emu/driver/,memory.o block.o warp.o runtime.o libcuda.o)
DRIVER   := $(if $(filter 1,$(CUDA)),$(B)/emu/libcuda.so.1)
PIC      := -fPIC -fvisibility=hidden -ffunction-sections
$(B)/emu/driver/%.o: tests/gpu/emu/%.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) $(EMU_FLAGS) $(PIC) $(EMU_HOST) -MMD -MP -c $< -o $@

$(B)/emu/driver/%.o: tests/gpu/driver/%.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) $(EMU_FLAGS) $(PIC) $(EMU_CU) -Wno-unused-function -MMD -MP -c $< -o $@

$(B)/emu/libcuda.so.1: $(DRIVER_O)
	$(Q)$(CXX) -g -shared -fsanitize=undefined -Wl,-Bsymbolic,--gc-sections,-z,defs $^ -o $@

emu: $(EMU_T) $(B)/emu/parity   ## the CUDA backend on an emulated card: every check of tests/gpu/emu
	$(Q)B=$(B) FIXTURES=$(FIXTURES) bash tests/gpu/emu/run.sh

UNIT_T := $(UNIT:%.c=$(B)/%)
$(UNIT_T): $(B)/%: $(B)/obj/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(UNIT_LD) $^ -lcmocka $(LDLIBS) -o $@
# Its backend stands in for the CUDA one, also where that is built in.
$(B)/tests/unit/apart_test: UNIT_LD := -Wl,--wrap=kern_cuda

unit: $(UNIT_T) $(B)/tests/corpus     ## unit tests (cmocka); what fuzzing starts from must compile too
	$(Q)bash tests/unit/run.sh $(B) $(UNIT_T)

$(B)/tests/parity: $(call obj,$(PARITY)) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $^ $(LDLIBS) -o $@

# Recorded results of the public reference code; where they are not there, say so and go on.
FIXTURES ?= ../shared/fixtures/parity
parity: $(B)/tests/parity       ## compare with recorded results of the reference (FIXTURES=DIR)
	$(Q)if [ -d $(FIXTURES) ]; then $(B)/tests/parity $(FIXTURES); \
	    else echo "parity: no fixtures at $(FIXTURES), skipped"; fi

e2e: all $(DRIVER) $(B)/tests/unit/comm_test   ## end-to-end tests: programs, damage, instruction sets, data tools
	$(Q)for t in tests/data/*_test.sh tests/e2e/*_test.sh; do \
	    BIN=$(BIN) B=$(B) bash $$t || { echo "FAILED: $$t"; exit 1; }; done

asan:                   ## the unit tests again under AddressSanitizer and UBSan
	$(Q)$(MAKE) --no-print-directory CUDA=0 B=$(B)/asan BIN=$(B)/asan/bin \
	    SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" unit

# libFuzzer targets for every reader; tests/fuzz/corpus.c makes what they start from.
FUZZ := $(patsubst tests/fuzz/%_fuzz.c,%,$(wildcard tests/fuzz/*_fuzz.c))
SECONDS ?= 60
fuzz:                   ## fuzz every reader for SECONDS=60 each (needs clang)
	$(Q)$(MAKE) --no-print-directory CUDA=0 CC=clang B=$(B)/fuzz BIN=$(B)/fuzz/bin \
	    SAN="-fsanitize=fuzzer-no-link,address,undefined" $(FUZZ:%=$(B)/fuzz/fuzz/%)
	$(Q)$(MAKE) --no-print-directory $(B)/tests/corpus && $(B)/tests/corpus $(B)/fuzz/corpus
	$(Q)for t in $(FUZZ); do mkdir -p $(B)/fuzz/corpus/$$t; echo "== fuzz $$t"; \
	    $(B)/fuzz/fuzz/$$t -max_total_time=$(SECONDS) -max_len=8192 -verbosity=0 -print_final_stats=1 \
	    $(B)/fuzz/corpus/$$t || exit 1; done

$(B)/fuzz/%: $(B)/obj/tests/fuzz/%_fuzz.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer $^ $(LDLIBS) -o $@

$(B)/tests/corpus: $(B)/obj/tests/fuzz/corpus.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $^ $(LDLIBS) -o $@

full-size: all          ## each full-size recipe, a few steps to a verified file (half an hour; SHARDS=DIR)
	$(Q)SHARDS="$(SHARDS)" BIN=$(BIN) THREADS=$(THREADS) sh recipes/full_size.sh

twins: all              ## the four small twins, trained and verified (SHARDS=DIR)
	$(Q)SHARDS="$(SHARDS)" BIN=$(BIN) THREADS=$(THREADS) sh recipes/twins.sh

ablate: all             ## what each switch is worth: a twin trained with one setting changed (SHARDS=DIR)
	$(Q)SHARDS="$(SHARDS)" BIN=$(BIN) sh recipes/ablate.sh

bench: all $(addprefix $(B)/bench/,gemm ops codecs scaling) ## measurements beside peers (bench/README.md; not in CI)
	$(Q)B=$(B) BIN=$(BIN) THREADS=$(THREADS) bash bench/run.sh

$(B)/bench/%: $(B)/obj/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $^ -lopenblas $(LDLIBS) -o $@

bench-gpu: $(B)/bench/gpu ## operations, steps and windows on a card beside ceilings and PyTorch (PARTS=...)
	$(Q)B=$(B) bash bench/gpu.sh

$(B)/bench/gpu: $(call obj,$(wildcard bench/gpu*.c)) $(GPU_LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(filter %.o,$^) $(GPU_LIB) $(LDLIBS_GPU) -o $@

test-gpu: $(GPU_T)      ## everything that needs a graphics card, in one command (PARTS=...); needs the CUDA toolkit
	$(Q)B=$(B) BIN=$(BIN) FIXTURES=$(FIXTURES) PATH="$$PATH:$(dir $(NVCC))" bash tests/gpu/run.sh

$(B)/tests/size: $(B)/obj/tests/size.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $^ $(LDLIBS) -o $@

size: $(B)/tests/size $(addprefix $(B)/stub/,runner.symbols runner_full.symbols runner_cuda cuda.ptx)  ## bytes of loader and runners, by function
	$(Q)bash stub/size.sh $(B)

install: all            ## programs, recipes, manual, completion into PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/pgolf/recipes \
	    $(DESTDIR)$(PREFIX)/share/pgolf/data $(DESTDIR)$(PREFIX)/share/doc/pgolf/docs
	install -m 755 $(BIN)/trainer $(DESTDIR)$(PREFIX)/bin/trainer
	install -m 755 $(BIN)/packer $(DESTDIR)$(PREFIX)/bin/packer
	install -m 755 $(BIN)/verify $(DESTDIR)$(PREFIX)/bin/verify
	install -m 755 $(BIN)/shards $(DESTDIR)$(PREFIX)/bin/shards
	install -m 644 recipes/*.conf $(DESTDIR)$(PREFIX)/share/pgolf/recipes
	install -m 755 trainer/data/*.sh $(DESTDIR)$(PREFIX)/share/pgolf/data
	install -m 644 trainer/data/*.awk $(DESTDIR)$(PREFIX)/share/pgolf/data
	install -m 644 README.md $(DESTDIR)$(PREFIX)/share/doc/pgolf
	install -m 644 docs/*.md $(DESTDIR)$(PREFIX)/share/doc/pgolf/docs
	sh man/man.sh $(BIN) $(B)/man
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man1 bash-completion/completions zsh/site-functions)
	install -m 644 $(B)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	for p in trainer packer verify shards; do install -m 644 completion/pgolf.bash \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$p || exit 1; done
	install -m 644 completion/_pgolf $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pgolf

deps: ; @$(call need,$(DEPS))   ## Debian packages for building (root: installed)
deps-demo: ; @$(call need,$(DEPS) $(DEPS_DEMO))
deps-test: ; @$(call need,$(DEPS) $(DEPS_DEMO) $(DEPS_TEST))

# Install what is missing, or say what to type. Without dpkg (another distribution) just say the names.
define need
command -v dpkg-query >/dev/null || { echo "make: not Debian; needs the equivalents of: $(1)"; exit 0; }; \
m=; for p in $(1); do \
    dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || m="$$m $$p"; done; \
[ -z "$$m" ] && exit 0; \
[ "$$(id -u)" = 0 ] || { echo "make: missing packages. Run: sudo apt-get install -y$$m"; exit 2; }; \
echo "make: installing$$m"; apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$m >/dev/null
endef

help:                   ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

clean:                  ## remove what make made
	rm -rf build bin out

.PHONY: always all demo test test-gpu bench-gpu check unit parity e2e asan fuzz full-size twins ablate bench size install deps deps-demo deps-test help clean
.PRECIOUS: $(B)/obj/%.o
-include $(shell find $(B) -name '*.d' 2>/dev/null)
