# The commands that test. Every unit test and every executable tests/system/test_* takes part; tests/run says how.
#   make check  the inner loop: unit tests and the short system tests
#   make test   installs what is missing, builds, passes everything, of the long figures a sample
#   make long   the figures in full length
#   make conformance  the seven devices against QEMU and Bochs alone (docs/conformance.md)

SYSTEM_TESTS := $(wildcard tests/system/test_*)

# Expanded late: the unit tests are named by a file that is read after this one.
.PHONY: test-programs
.SECONDEXPANSION:
test-programs: all $(B)/metronome.pvh guests images $$(UNIT_TESTS)

RUN_TESTS = @tests/run --build "$(MAKE) --no-print-directory -j2 test-programs" $(UNIT_TESTS) $(SYSTEM_TESTS) --length

check:
	$(RUN_TESTS) check

.PHONY: conformance
conformance: all guests
	tests/system/test_conformance.py

# The packages are installed before make reads which of them it needs.
test long:
	@$(MAKE) --no-print-directory deps
	$(RUN_TESTS) $@
