# ACPI tables for guests without a device model: iasl makes the AML, which becomes part of the hypervisor (and of the unit
# tests). The AML carries no build date, so it is the same everywhere.

FIRMWARE_SRC := $(wildcard firmware/acpi/*.c firmware/acpi/*.S)
FIRMWARE_CFLAGS := -Ifirmware -I$(B)/firmware
HV_CFLAGS += $(FIRMWARE_CFLAGS)
HV_OBJ += $(patsubst %,$(B)/hv/%.o,$(FIRMWARE_SRC))

$(B)/firmware/%.aml: firmware/acpi/%.asl
	@mkdir -p $(@D)
	@iasl -p $(B)/firmware/$* $< >$(B)/firmware/$*.log || { cat $(B)/firmware/$*.log >&2; exit 1; }

$(B)/hv/firmware/acpi/aml.S.o: $(B)/firmware/module.aml
