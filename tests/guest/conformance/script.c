/* The interpreter of the scripts. */
#include "script.h"

#define VALUES 256

/* Lines that follow from one another are printed together when nothing of them runs any more: the console's interrupt is one
 * of the sources. */
static struct value {
    enum { NAME, HEX, NUMBER, WORD } kind;
    unsigned size;
    uint64_t v;
    const char *word;
} values[VALUES];
static unsigned value_count;
static bool absent;
static uint64_t mark;
static enum eoi ending;
bool faulted;

static void value(struct value v)
{
    if (value_count < VALUES)
        values[value_count++] = v;
}

void value_hex(uint64_t v, unsigned size)
{
    value((struct value){.kind = HEX, .size = size, .v = v});
}

void value_number(uint64_t v)
{
    value((struct value){.kind = NUMBER, .v = v});
}

void value_word(const char *word)
{
    value((struct value){.kind = WORD, .word = word});
}

static void print_value(const struct value *v)
{
    if (v->kind == NAME)
        print("%s:", v->word);
    else if (v->kind == WORD)
        print(" %s", v->word);
    else if (v->kind == NUMBER)
        print(" %lu", v->v);
    else if (v->size == 1)
        print(" %02x", (unsigned)v->v);
    else if (v->size == 2)
        print(" %04x", (unsigned)v->v);
    else if (v->size == 4)
        print(" %08x", (unsigned)v->v);
    else
        print(" %016lx", v->v);
}

static void end_lines(void)
{
    if (!value_count)
        return;
    quiet();
    for (unsigned i = 0; i < value_count; i++) {
        print_value(&values[i]);
        if (i + 1 == value_count || values[i + 1].kind == NAME)
            print("\n");
    }
    value_count = 0;
    console_drain();
}

uint64_t space_read(enum space s, unsigned size, uint32_t reg)
{
    uint64_t v = 0;
    uint16_t port = (uint16_t)(s == PM_EVENT ? pm.event + reg : s == PM_TIMER ? pm.timer + reg : reg);
    switch (s) {
    case IO:
    case PM_EVENT:
    case PM_TIMER: return size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
    case IOAPIC_REG: return ioapic_read(reg);
    case CMOS: return cmos_read((uint8_t)reg);
    case MSR: faulted = !try_rdmsr(reg, &v); return v;
    case MEM: break;
    }
    switch (size) {
    case 1: return *(volatile uint8_t *)(uintptr_t)reg;
    case 2: return *(volatile uint16_t *)(uintptr_t)reg;
    case 4: return *(volatile uint32_t *)(uintptr_t)reg;
    default: return *(volatile uint64_t *)(uintptr_t)reg;
    }
}

static void port_write(uint16_t port, unsigned size, uint32_t v)
{
    if (size == 1)
        outb(port, (uint8_t)v);
    else if (size == 2)
        outw(port, (uint16_t)v);
    else
        outl(port, v);
}

static void memory_write(uintptr_t a, unsigned size, uint64_t v)
{
    if (size == 1)
        *(volatile uint8_t *)a = (uint8_t)v;
    else if (size == 2)
        *(volatile uint16_t *)a = (uint16_t)v;
    else if (size == 4)
        *(volatile uint32_t *)a = (uint32_t)v;
    else
        *(volatile uint64_t *)a = v;
}

void space_write(enum space s, unsigned size, uint32_t reg, uint64_t v)
{
    switch (s) {
    case IO: port_write((uint16_t)reg, size, (uint32_t)v); break;
    case PM_EVENT: port_write((uint16_t)(pm.event + reg), size, (uint32_t)v); break;
    case PM_TIMER: port_write((uint16_t)(pm.timer + reg), size, (uint32_t)v); break;
    case MEM: memory_write(reg, size, v); break;
    case IOAPIC_REG: ioapic_write(reg, (uint32_t)v); break;
    case CMOS: cmos_write((uint8_t)reg, (uint8_t)v); break;
    case MSR: faulted = !try_wrmsr(reg, v); break;
    }
}

static void op_write(const struct op *o)
{
    space_write(o->space, o->size, o->reg, o->value);
    if (o->space == MSR)
        value_word(faulted ? "#GP" : "ok");
}

static void op_read(const struct op *o)
{
    uint64_t v = space_read(o->space, o->size, o->reg);
    if (o->space == MSR && faulted)
        value_word("#GP");
    else
        value_hex(v & o->mask, o->size);
}

static uint64_t read_back(const struct op *o, uint64_t v)
{
    space_write(o->space, o->size, o->reg, v);
    return space_read(o->space, o->size, o->reg);
}

static void op_walk(const struct op *o)
{
    uint64_t before = space_read(o->space, o->size, o->reg);
    uint64_t zeros = read_back(o, 0) & o->mask, ones = read_back(o, o->mask) & o->mask, alone = 0, others = 0;
    for (unsigned bit = 0; bit < 8u * o->size; bit++) {
        uint64_t b = 1ull << bit;
        if (!(o->mask & b))
            continue;
        uint64_t v = read_back(o, b) & o->mask & ~zeros;
        alone |= v & b;
        others |= v & ~b;
    }
    space_write(o->space, o->size, o->reg, before);
    value_hex(zeros, o->size);
    value_hex(ones, o->size);
    value_hex(alone, o->size);
    value_hex(others, o->size);
}

bool until(const struct op *o)
{
    uint64_t start = rdtsc();
    while ((space_read(o->space, o->size, o->reg) & o->mask) != o->value) {
        if (rdtsc() - start > us(o->limit_ms * 1000ull))
            return false;
        spin_us(10);
    }
    return true;
}

uint64_t rounded(uint64_t v, uint64_t unit)
{
    return (v + unit / 2) / unit;
}

/* Emulators run plain instructions fast, RDTSC and PAUSE slowly. */
void spin_us(uint64_t n)
{
    uint64_t start = rdtsc();
    while (rdtsc() - start < us(n))
        __asm__ volatile(".rept 100; nop; .endr");
}

void open_us(uint64_t n)
{
    sti();
    spin_us(n);
    cli();
}

uint64_t lapic_timer_per_ms;

void nap_us(uint64_t n)
{
    count_vector(WATCHDOG, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, WATCHDOG);
    apic_write(APIC_TMICT, (uint32_t)(lapic_timer_per_ms * n / 1000));
    while (!hits[WATCHDOG])
        halt();
}

static void op_time(const struct op *o)
{
    if (until(o))
        value_number(rounded(rdtsc() - mark, us(o->unit_us)));
    else
        value_word("never");
}

static void op_ints(void)
{
    open_us(30);
    if (!order_count)
        value_word("-");
    for (unsigned i = 0; i < order_count; i++)
        value_hex(order[i], 1);
    order_count = 0;
}

static void op_wait_int(const struct op *o)
{
    uint64_t start = rdtsc();
    sti();
    while (hits[o->reg] < o->value && rdtsc() - start < us(o->limit_ms * 1000ull))
        spin_us(5);
    cli();
    value_word(hits[o->reg] >= o->value ? "yes" : "never");
}

/* A level that nobody takes away must not keep the guest for ever. */
static void end_storm(unsigned vector)
{
    if (order_count < sizeof(order) && hits[vector] < 100000)
        return;
    irq4(0);
    sci(0);
    pic_mask(0xffff);
}

/* NMI; what illegal vectors and a PIC without a base make of interrupts; nothing here raises them as exceptions. */
static const uint8_t below_32[] = {2, 4, 5, 15, 16};

static void count_all(enum eoi how)
{
    ending = how;
    for (unsigned v = 0x20; v < 0x100; v++)
        count_vector(v, v == 0xff ? EOI_NONE : how);
    for (unsigned i = 0; i < sizeof(below_32); i++)
        count_vector(below_32[i], EOI_NONE);
    order_count = 0;
    on_hit = end_storm;
}

static void set_eoi(enum eoi how)
{
    if (how != ending)
        count_all(how);
}

static void begin(const struct op *o, bool present)
{
    if (o->code == OP_LINE) {
        end_lines();
        absent = !present;
        count_all(EOI_NONE);
    }
    value((struct value){.kind = NAME, .word = o->name});
    if (absent)
        value_word("absent");
}

static void need(bool there)
{
    if (!there)
        value_word("absent");
    absent = !there;
}

static void run_op(const struct op *o)
{
    switch (o->code) {
    case OP_NEEDS: need(o->needs()); break;
    case OP_WRITE: op_write(o); break;
    case OP_READ: op_read(o); break;
    case OP_SILENT: space_read(o->space, o->size, o->reg); break;
    case OP_WALK: op_walk(o); break;
    case OP_UNTIL: value_word(until(o) ? "yes" : "never"); break;
    case OP_TIME: op_time(o); break;
    case OP_MARK: mark = rdtsc(); break;
    case OP_US: spin_us(o->value); break;
    case OP_RUN_US: open_us(o->value); break;
    case OP_INTS: op_ints(); break;
    case OP_WAIT_INT: op_wait_int(o); break;
    case OP_HITS: value_number(hits[o->reg]); break;
    case OP_EOI: set_eoi(o->value); break;
    case OP_CALL: o->call((unsigned)o->value); break;
    default: break;
    }
}

void run_script(const struct script *s)
{
    bool present = !s->present || s->present();
    for (const struct op *o = s->ops; o < s->ops + s->count; o++)
        if (o->code == OP_LINE || o->code == OP_THEN)
            begin(o, present);
        else if (!absent)
            run_op(o);
    end_lines();
}
