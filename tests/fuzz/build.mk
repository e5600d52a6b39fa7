# Fuzzing with libFuzzer, under ASan and UBSan: every device model by one driver, the instruction emulator, the loader.
#   make fuzz FUZZ_SECONDS=N   each target for N seconds; FUZZ_TARGETS="vpit rtc" for some only
# Seeds are in tests/fuzz/corpus/; what a run finds beyond them is kept in build/fuzz/found/.

FUZZ_MODELS := vpic vioapic vlapic vpit hpet rtc pmtimer uart
FUZZ_TARGETS := $(FUZZ_MODELS) fabric emulate loader
FUZZ_SECONDS := 60
FUZZ_CC := clang
FUZZ_CFLAGS := -std=gnu11 -O1 -g -fno-sanitize-recover=all -fno-omit-frame-pointer -Wall -Wextra -Werror -Wno-unused-parameter \
	-iquote include -Iarch/x86/include -Iarch/x86/hvm -Itests/fuzz $(FIRMWARE_CFLAGS)

$(B)/fuzz/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c $< -o $@

$(B)/fuzz/obj/%.S.o: %.S
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -c $< -o $@
$(B)/fuzz/obj/firmware/acpi/aml.S.o: $(B)/firmware/module.aml

# A model, what is known of it, and the step that both fuzzer and prover take.
model_src = tests/fuzz/step.c tests/fuzz/model_$(1).c tests/proof/invariants_$(1).c $(wildcard arch/x86/hvm/$(1)/*.c)
fuzz_objects = $(patsubst %,$(B)/fuzz/obj/%.o,$(1))
$(foreach m,$(FUZZ_MODELS),$(eval $(B)/fuzz/fuzz_$m: $(call fuzz_objects,tests/fuzz/driver.c $(call model_src,$m))))
$(B)/fuzz/fuzz_emulate: $(call fuzz_objects,tests/fuzz/fuzz_emulate.c $(wildcard arch/x86/hvm/emulate/*.c))
$(B)/fuzz/fuzz_loader: $(call fuzz_objects,tests/fuzz/fuzz_loader.c $(wildcard arch/x86/hvm/loader/*.c) $(FIRMWARE_SRC))


# The core on a simulated CPU (tests/unit/fabric_machine.h includes hvm.c), and what it calls.
SIMULATED_CORE := $(patsubst %,arch/x86/hvm/%.c,console control cpuid domain exit fabric flight inject io ioreq message msr plan post sched slot state tracing vcpu vtime work) \
	arch/x86/mm/p2m.c common/trace.c
FUZZ_CORE := $(patsubst %,$(B)/fuzz/core/%.o,$(SIMULATED_CORE) tests/fuzz/fuzz_fabric.c)
FUZZ_PURE := common/deadline.c $(FIRMWARE_SRC) $(wildcard $(foreach d,$(FUZZ_MODELS) emulate loader ticks latency,arch/x86/hvm/$(d)/*.c))
$(B)/fuzz/core/%.c.o: %.c tests/unit/simulated_cpu.h
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -include tests/unit/simulated_cpu.h -Wno-incompatible-library-redeclaration \
		-fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c $< -o $@
$(B)/fuzz/fuzz_fabric: $(FUZZ_CORE) $(call fuzz_objects,$(FUZZ_PURE))

$(B)/fuzz/fuzz_%:
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined $^ -o $@

.PHONY: fuzz fuzz-programs
fuzz-programs: $(patsubst %,$(B)/fuzz/fuzz_%,$(FUZZ_TARGETS))
fuzz: fuzz-programs
	@tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# Takes what was found into the seeds: the fewest inputs that reach all edges.
.PHONY: fuzz-corpus
fuzz-corpus: fuzz-programs
	@for t in $(FUZZ_TARGETS); do mkdir -p tests/fuzz/corpus/$$t $(B)/fuzz/found/$$t && \
		$(B)/fuzz/fuzz_$$t -set_cover_merge=1 -use_counters=0 -max_len=4096 tests/fuzz/corpus/$$t $(B)/fuzz/found/$$t \
			>$(B)/fuzz/$$t.log 2>&1 || exit 1; done
