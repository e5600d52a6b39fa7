# make coverage: the seven device models and their unit tests, built without optimisation and with gcc's counters, run, and
# lines and branches printed per model. It fails where a model falls below the bound in tests/coverage/measure.

COVERED_MODELS := vpic vioapic vlapic vpit hpet rtc pmtimer
COVERAGE_CFLAGS := -std=gnu99 -O0 -g --coverage -Wall -Wextra -Werror -Wno-unused-parameter \
	-iquote include -Iarch/x86/include -Iarch/x86/hvm -Itests/unit
COVERAGE_OBJ := $(patsubst %,$(B)/coverage/%.o,$(wildcard $(COVERED_MODELS:%=arch/x86/hvm/%/*.c)))
# test_vlapic_page is of the core around that model.
COVERAGE_TESTS := $(patsubst tests/unit/%.c,$(B)/coverage/%,$(filter-out %/test_vlapic_page.c,$(sort $(wildcard \
	$(COVERED_MODELS:%=tests/unit/test_%.c) $(COVERED_MODELS:%=tests/unit/test_%_*.c) tests/unit/test_clocks.c))))

$(B)/coverage/%.c.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(COVERAGE_CFLAGS) -MMD -MP -c $< -o $@

.SECONDARY: $(COVERAGE_OBJ) $(COVERAGE_TESTS:$(B)/coverage/%=$(B)/coverage/tests/unit/%.c.o)
$(B)/coverage/test_%: $(B)/coverage/tests/unit/test_%.c.o $(COVERAGE_OBJ)
	$(HOSTCC) --coverage $^ -lcmocka -o $@

.PHONY: coverage
coverage: $(COVERAGE_TESTS)
	@tests/coverage/measure $(B)/coverage $(COVERED_MODELS) -- $(COVERAGE_TESTS)
