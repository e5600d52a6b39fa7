/* The tables that iasl made, as they are; -I names the folder they are built in. */
    .section .rodata
    .global acpi_module_dsdt, acpi_module_dsdt_end
acpi_module_dsdt:
    .incbin "module.aml"
acpi_module_dsdt_end:

    .section .note.GNU-stack, "", @progbits
