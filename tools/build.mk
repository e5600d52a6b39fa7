# The user's command line.

TOOL_CFLAGS := $(DAEMON_CFLAGS) -D_GNU_SOURCE -iquote tools/metronome
TOOL_SRC := $(wildcard tools/metronome/*.c)
TOOL_SHARED := $(LAUNCH_SRC) $(addprefix dm-proxy/daemon/,packet.c request.c paths.c host.c image.c latency.c reason.c)
TOOL_OBJ := $(TOOL_SRC:%.c=$(B)/tool-obj/%.o) $(TOOL_SHARED:%.c=$(B)/daemon-obj/%.o)

all: $(B)/metronome

$(B)/tool-obj/%.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(TOOL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/metronome: $(TOOL_OBJ)
	$(HOSTCC) $^ -lxlutil -lxenlight -lz -lm -o $@

# The test guest.

GUEST_FILES := $(B)/images/linux.img $(B)/images/vmlinuz $(B)/images/initramfs.cpio.gz

$(GUEST_FILES) &: tools/make-disk tools/fetch-package $(wildcard images/*)
	tools/make-disk

.PHONY: images
images: $(GUEST_FILES)

# Debian's own boot media, unpacked: ipxe.iso, memtest86+x64.bin and such.
$(B)/packages/%: tools/fetch-package
	@tools/fetch-package $*

# The packages are installed before make reads which of them it needs.
run:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all images
	$(B)/metronome run --disk $(B)/images/linux.img,raw,sda
