/*
 * The symbol table that arch/x86/boot/symbols.py makes from the first of two links.
 */
#include "symbols.h"
#include <stddef.h>
#include "../boot/layout.h"

struct symbol {
    uint32_t address, name; /* less IMAGE_OFFSET; offset in the names */
};

extern const struct {
    uint32_t count, zero;
    struct symbol symbol[];
} symbol_table;
extern const char __text_start[], __text_end[];

const char *symbol_at(uint64_t address, uint64_t *offset)
{
    if (address < (uint64_t)__text_start || address >= (uint64_t)__text_end || !symbol_table.count)
        return NULL;
    uint32_t at = (uint32_t)(address - IMAGE_OFFSET), low = 0, high = symbol_table.count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (symbol_table.symbol[middle].address <= at)
            low = middle;
        else
            high = middle;
    }
    if (symbol_table.symbol[low].address > at)
        return NULL;
    *offset = at - symbol_table.symbol[low].address;
    return (const char *)&symbol_table.symbol[symbol_table.count] + symbol_table.symbol[low].name;
}
