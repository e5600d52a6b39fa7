# Unit tests: the device models, the emulator and other pure code as plain Linux processes under ASan and UBSan.
# Every tests/unit/test_NAME.c is one cmocka program, linked with all pure sources.

PURE_SRC := common/deadline.c $(wildcard $(foreach d,vpic vioapic vlapic vpit hpet rtc pmtimer emulate loader uart ticks latency,arch/x86/hvm/$(d)/*.c))
UNIT_CFLAGS := -std=gnu99 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-Wall -Wextra -Werror -Wno-unused-parameter -iquote include -Iarch/x86/include -Iarch/x86/hvm $(FIRMWARE_CFLAGS)
comma := ,
UNIT_OBJ := $(patsubst %,$(B)/unit/obj/%.o,$(PURE_SRC) $(FIRMWARE_SRC))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))

$(B)/unit/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(UNIT_CFLAGS) -MMD -MP -c $< -o $@

$(B)/unit/obj/%.S.o: %.S
	@mkdir -p $(@D)
	$(HOSTCC) $(UNIT_CFLAGS) -c $< -o $@
$(B)/unit/obj/firmware/acpi/aml.S.o: $(B)/firmware/module.aml

# Made anew with the list: what has left it must not stay in there.
$(B)/unit/libpure.a: $(UNIT_OBJ) tests/unit/build.mk
	rm -f $@ && ar rcs $@ $(UNIT_OBJ)

# A test may name further libraries in LIBS_test_NAME.
$(B)/unit/test_%: tests/unit/test_%.c $(B)/unit/libpure.a
	$(HOSTCC) $(UNIT_CFLAGS) -MMD -MP $< $(B)/unit/libpure.a -lcmocka $(LIBS_test_$*) -o $@

$(B)/unit/test_control_ring: private UNIT_CFLAGS += -iquote . -iquote dm-proxy
LIBS_test_emulate := -lunicorn
LIBS_test_emulate_length := -lZydis -lZycore

# The HVM core for tests of it: its real sources, with a thread as CPU. What they call that no test comes to is not there.
CORE_OBJ := $(patsubst %,$(B)/unit/core/arch/x86/hvm/%.c.o,console exit fabric inject io ioreq message post sched slot tracing vtime) \
	$(B)/unit/core/common/trace.c.o
$(B)/unit/core/%.c.o: %.c tests/unit/core_cpu.h
	@mkdir -p $(@D)
	$(HOSTCC) $(UNIT_CFLAGS) -include tests/unit/core_cpu.h -MMD -MP -c $< -o $@
CORE_TESTS := $(B)/unit/test_advisories_core $(B)/unit/test_ticks_core
$(CORE_TESTS): $(CORE_OBJ)
$(CORE_TESTS): private UNIT_CFLAGS += -include tests/unit/core_cpu.h
LIBS_test_advisories_core := $(CORE_OBJ) $(B)/unit/libpure.a -no-pie -Wl,--unresolved-symbols=ignore-all
LIBS_test_ticks_core := $(LIBS_test_advisories_core)

# Posting alone: nothing of the rest is come to.
POST_OBJ := $(patsubst %,$(B)/unit/core/arch/x86/hvm/%.c.o,post vtime) $(B)/unit/core/common/trace.c.o
$(B)/unit/test_post_merge: $(POST_OBJ)
$(B)/unit/test_post_merge: private UNIT_CFLAGS += -include tests/unit/core_cpu.h
LIBS_test_post_merge := $(POST_OBJ) $(B)/unit/libpure.a -no-pie -Wl,--unresolved-symbols=ignore-all

# The trace's rings (which the test includes), of CPUs that are threads.
$(B)/unit/test_trace: common/trace.c
$(B)/unit/test_trace: private UNIT_CFLAGS += -include tests/unit/core_cpu.h
LIBS_test_trace := -pthread

# With the pCPUs' loop (which the test includes), vCPUs and domains as well.
STATES_OBJ := $(CORE_OBJ) $(patsubst %,$(B)/unit/core/arch/x86/%.c.o,hvm/domain hvm/flight hvm/plan hvm/vcpu hvm/work mm/p2m)
STATES_TESTS := $(B)/unit/test_states $(B)/unit/test_post_stress
$(STATES_TESTS): $(STATES_OBJ) arch/x86/hvm/hvm.c
$(STATES_TESTS): private UNIT_CFLAGS += -include tests/unit/core_cpu.h -Wno-builtin-declaration-mismatch
LIBS_test_states := $(STATES_OBJ) $(B)/unit/libpure.a -no-pie -Wl,--unresolved-symbols=ignore-all
LIBS_test_post_stress := $(LIBS_test_states) -Wl,--wrap=vcpu_drain

# The same under ThreadSanitizer. What is volatile is shared on purpose: it is told apart, and the test does not look at it.
TSAN_CFLAGS := $(subst address$(comma)undefined,thread,$(UNIT_CFLAGS)) --param tsan-distinguish-volatile=1 -Wno-tsan
TSAN_CORE := -include tests/unit/core_cpu.h -Wno-builtin-declaration-mismatch
TSAN_OBJ := $(STATES_OBJ:$(B)/unit/%=$(B)/unit/tsan/%) $(PURE_SRC:%=$(B)/unit/tsan/obj/%.o)
$(B)/unit/tsan/core/%.c.o: %.c tests/unit/core_cpu.h
	@mkdir -p $(@D)
	$(HOSTCC) $(TSAN_CFLAGS) $(TSAN_CORE) -MMD -MP -c $< -o $@
$(B)/unit/tsan/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(TSAN_CFLAGS) -MMD -MP -c $< -o $@
$(B)/unit/test_post_stress_tsan: tests/unit/test_post_stress.c $(TSAN_OBJ) arch/x86/hvm/hvm.c
	$(HOSTCC) $(TSAN_CFLAGS) $(TSAN_CORE) -MMD -MP $< $(TSAN_OBJ) -lcmocka -no-pie -Wl,--unresolved-symbols=ignore-all \
		-Wl,--wrap=vcpu_drain -o $@
UNIT_TESTS += $(B)/unit/test_post_stress_tsan

# The whole core on a simulated CPU: SIMULATED_CORE is in tests/fuzz/build.mk.
SIMULATED_OBJ := $(SIMULATED_CORE:%=$(B)/unit/simulated/%.o)
$(B)/unit/simulated/%.c.o: %.c tests/unit/simulated_cpu.h tests/unit/core_cpu.h
	@mkdir -p $(@D)
	$(HOSTCC) $(UNIT_CFLAGS) -include tests/unit/simulated_cpu.h -MMD -MP -c $< -o $@
SIMULATED_TESTS := $(addprefix $(B)/unit/,test_state test_vlapic_page test_life test_console test_cpuid)
$(SIMULATED_TESTS): $(SIMULATED_OBJ) arch/x86/hvm/hvm.c
$(SIMULATED_TESTS): private UNIT_CFLAGS += -include tests/unit/simulated_cpu.h -Wno-builtin-declaration-mismatch -Wno-unused-function
LIBS_test_state := $(SIMULATED_OBJ) $(B)/unit/libpure.a -no-pie
LIBS_test_vlapic_page := $(LIBS_test_state)
LIBS_test_life := $(LIBS_test_state)
LIBS_test_console := $(LIBS_test_state)
LIBS_test_cpuid := $(LIBS_test_state)

# The scheduler alone, on clocks.
$(B)/unit/test_sched: arch/x86/hvm/sched.c
$(B)/unit/test_sched: private UNIT_CFLAGS += -include tests/unit/simulated_cpu.h

# So is the flight recorder.
$(B)/unit/test_flight: arch/x86/hvm/flight.c
$(B)/unit/test_flight: private UNIT_CFLAGS += -include tests/unit/simulated_cpu.h

.PHONY: unit
unit: $(UNIT_TESTS)
	@for t in $(UNIT_TESTS); do echo "== $$t"; $$t || exit 1; done
