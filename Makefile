# Metronome. `make run` boots a Linux guest on the terminal; `make test` builds and passes every test.
# Parts with rules of their own keep them in a build.mk beside their sources.

B := build
CC := gcc
HOSTCC := gcc
PYTHON := python3

.PHONY: all deps run test check long clean
all: $(B)/metronome.elf

include arch/x86/build.mk
include $(wildcard dm-proxy/build.mk tools/build.mk firmware/build.mk tests/*/build.mk)

# Every Debian package a command needs is in ./packages; installed once, checked each time.
deps:
	@tools/install-packages

clean:
	rm -rf $(B)

-include $(shell find $(B) -path $(B)/packages -prune -o -type f -name '*.d' -print 2>/dev/null)
