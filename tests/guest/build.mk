# Bare-metal guests. tests/guest/NAME/*.[cS] and the library make build/guest/NAME.elf: 64-bit code in an ELF32 with a
# multiboot1 header, which QEMU's -kernel, GRUB and Metronome start alike. Their protocol is in tests/guest/lib/guest.h.

GUEST_NAMES := $(filter-out lib,$(patsubst tests/guest/%/,%,$(sort $(dir $(wildcard tests/guest/*/*.c)))))
GUEST_ELF := $(patsubst %,$(B)/guest/%.elf,$(GUEST_NAMES))
GUEST_CFLAGS := -std=gnu99 -O2 -g -ffreestanding -fno-pic -fno-pie -no-pie -mcmodel=small -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing -Wall -Wextra -Werror \
	-Wmissing-prototypes -Wstrict-prototypes -Itests/guest/lib
GUEST_LIB_OBJ := $(patsubst %,$(B)/guest/obj/%.o,$(wildcard tests/guest/lib/*.c tests/guest/lib/*.S))

$(B)/guest/obj/%.o: %
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -MMD -MP -c $< -o $@

.SECONDEXPANSION:
$(GUEST_ELF): $(B)/guest/%.elf: $(GUEST_LIB_OBJ) tests/guest/lib/guest.lds \
		$$(patsubst $$(percent),$(B)/guest/obj/$$(percent).o,$$(wildcard tests/guest/$$*/*.c tests/guest/$$*/*.S))
	$(CC) $(GUEST_CFLAGS) -nostdlib -static -Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack,--no-warn-rwx-segments \
		-T tests/guest/lib/guest.lds $(filter %.o,$^) -o $@.64
	objcopy -O elf32-i386 $@.64 $@
percent := %

.PHONY: guests
guests: $(GUEST_ELF)

# The devices' conformance guest for real boards: output on COM1 and the text screen (docs/conformance.md).
.PHONY: conformance-iso
conformance-iso: $(B)/conformance.iso
$(B)/conformance.iso: $(B)/guest/conformance.elf arch/x86/boot/make-iso
	arch/x86/boot/make-iso $@ $< -k multiboot -a screen
