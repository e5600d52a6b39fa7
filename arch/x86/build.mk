# The hypervisor: freestanding, linked from every source below arch/x86 and common.

HV_CFLAGS := -std=gnu99 -O2 -g -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -mno-red-zone -mgeneral-regs-only \
	-fstack-protector-strong -mstack-protector-guard=global -fno-strict-aliasing -fno-common -fno-omit-frame-pointer \
	-fcf-protection=none -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -Wvla -Iinclude -Iarch/x86/include -Iarch/x86/hvm
HV_SRC := $(wildcard arch/x86/*/*.c arch/x86/hvm/*/*.c common/*.c arch/x86/*/*.S arch/x86/hvm/*/*.S)
HV_OBJ := $(patsubst %,$(B)/hv/%.o,$(HV_SRC))
HV_LDS := arch/x86/boot/metronome.lds

$(B)/hv/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -MMD -MP -c $< -o $@

$(B)/hv/%.S.o: %.S
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -D__ASSEMBLY__ -MMD -MP -c $< -o $@
