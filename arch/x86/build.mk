# The hypervisor: freestanding, linked from every source below arch/x86 and common.

HV_CFLAGS := -std=gnu99 -O2 -g -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -mno-red-zone -mgeneral-regs-only \
	-fstack-protector-strong -mstack-protector-guard=global -fno-strict-aliasing -fno-common -fno-omit-frame-pointer \
	-fcf-protection=none -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -Wvla \
	-Iinclude -Iarch/x86/include -Iarch/x86/hvm
HV_LDFLAGS := -nostdlib -static -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments --build-id=none
HV_SRC := $(wildcard arch/x86/*/*.c arch/x86/hvm/*/*.c common/*.c arch/x86/*/*.S arch/x86/hvm/*/*.S)
HV_OBJ := $(patsubst %,$(B)/hv/%.o,$(HV_SRC))
HV_LDS := arch/x86/boot/metronome.lds
HV_SYMBOLS := arch/x86/boot/symbols.py

$(B)/hv/%.c.o: %.c arch/x86/build.mk
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -MMD -MP -c $< -o $@

$(B)/hv/%.S.o: %.S arch/x86/build.mk
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -D__ASSEMBLY__ -MMD -MP -c $< -o $@

# GCC would make calls to the very functions out of the loops in here.
$(B)/hv/common/string.c.o: HV_CFLAGS += -fno-tree-loop-distribute-patterns

$(B)/hv/metronome.lds: $(HV_LDS) arch/x86/boot/layout.h
	@mkdir -p $(@D)
	$(CC) -E -P -x c -D__ASSEMBLY__ -Iarch/x86/boot $< -o $@

# Others add to HV_OBJ after this file: expanded late.
.SECONDEXPANSION:

# Linked twice: the table of function names is made from the first image and lies behind all it names,
# so that nothing moves; that is checked.
$(B)/hv/symbols0.S: $(HV_SYMBOLS)
	@mkdir -p $(@D)
	$(PYTHON) $(HV_SYMBOLS) </dev/null >$@

$(B)/hv/pass1.elf: $$(HV_OBJ) $(B)/hv/symbols0.o $(B)/hv/metronome.lds
	@echo "$(LD) -o $@"
	@$(LD) $(HV_LDFLAGS) -T $(B)/hv/metronome.lds $(HV_OBJ) $(B)/hv/symbols0.o -o $@

$(B)/hv/symbols1.S: $(B)/hv/pass1.elf $(HV_SYMBOLS)
	nm -n $< | $(PYTHON) $(HV_SYMBOLS) >$@

$(B)/hv/symbols%.o: $(B)/hv/symbols%.S
	$(CC) -c $< -o $@

$(B)/metronome.elf64: $$(HV_OBJ) $(B)/hv/symbols1.o $(B)/hv/metronome.lds
	@echo "$(LD) -o $@"
	@$(LD) $(HV_LDFLAGS) -T $(B)/hv/metronome.lds $(HV_OBJ) $(B)/hv/symbols1.o -o $@
	@nm -n $@ | $(PYTHON) $(HV_SYMBOLS) | cmp - $(B)/hv/symbols1.S || { rm -f $@; exit 1; }

# What loaders take: 32-bit, since QEMU's multiboot loader refuses other ELF files. metronome.elf64 is for gdb and addr2line.
$(B)/metronome.elf: $(B)/metronome.elf64
	objcopy -O elf32-i386 -S $< $@

# The same without the multiboot header, which QEMU prefers: boots by the PVH note, in QEMU and wherever PVH kernels boot.
$(B)/metronome.pvh: $(B)/metronome.elf
	$(PYTHON) -c 'import sys; b = sys.stdin.buffer.read(); sys.stdout.buffer.write(b.replace(bytes.fromhex("02b0ad1b"), bytes(4), 1))' <$< >$@

# make iso ISO_APPEND="loglevel=debug" ISO_MODULES='-m "FILE ARGUMENTS"'
.PHONY: iso
iso: $(B)/metronome.iso
$(B)/metronome.iso: $(B)/metronome.elf arch/x86/boot/make-iso
	arch/x86/boot/make-iso $@ $< -a "$(ISO_APPEND)" $(ISO_MODULES)

# The hypervisor's own boot on every loader and emulator.
.PHONY: test-boot
test-boot: $(B)/metronome.elf $(B)/metronome.pvh
	tests/system/test_boot.sh $(B)
