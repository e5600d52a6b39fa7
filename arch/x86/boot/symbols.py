#!/usr/bin/env python3
"""The functions of an ELF file, from `nm -n`, as the table that backtraces are symbolised with.

usage: nm -n FILE | symbols.py > symbols.S
Layout (common/symbols.c): count, then per function its address less IMAGE_OFFSET and the offset of its name, then names.
"""
import sys

IMAGE_OFFSET = 0xFFFFFFFF80000000


def functions(lines):
    last = None
    for line in lines:
        fields = line.split()
        if len(fields) != 3 or fields[1] not in "tTwW":
            continue
        address = int(fields[0], 16)
        if address >= IMAGE_OFFSET and address != last:
            last = address
            yield address - IMAGE_OFFSET, fields[2]


def main():
    table = list(functions(sys.stdin))
    print('    .section .symbols, "a"\n    .balign 8\n    .global symbol_table\nsymbol_table:')
    print(f"    .long {len(table)}, 0")
    offset = 0
    for address, name in table:
        print(f"    .long {address:#x}, {offset}")
        offset += len(name) + 1
    for _, name in table:
        print(f'    .asciz "{name}"')
    print('    .section .note.GNU-stack, "", @progbits')


main()
