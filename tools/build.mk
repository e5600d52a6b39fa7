# The user's command line, and the test guest it boots.

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
	$(B)/metronome run --disk $(B)/images/linux.img
