#include "emulate.h"

static uint8_t ram_page[4096] __attribute__((aligned(4096)));
static uint8_t scratch_before[4096];
static uint8_t *device; /* the page behind the emulator */
static unsigned reported;

struct result {
    uint64_t gpr[16], flags;
    uint64_t xmm[8][2];
    uint8_t stack[64], scratch[4096];
};

#define EACH_XMM(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

static void load_xmm(uint64_t v[8][2])
{
#define X(n) __asm__ volatile("movdqu %0, %%xmm" #n : : "m"(*(uint8_t(*)[16])v[n]));
    EACH_XMM(X)
#undef X
}

static void store_xmm(uint64_t v[8][2])
{
#define X(n) __asm__ volatile("movdqu %%xmm" #n ", %0" : "=m"(*(uint8_t(*)[16])v[n]));
    EACH_XMM(X)
#undef X
}

static void dump(const struct test *t, const char *what, uint64_t ram, uint64_t emulated)
{
    static const char *const kinds[] = {"", "byte", "word", "", "dword", "", "", "", "qword"};
    if (reported++ >= 40)
        return;
    print("mismatch: %s, %s %s, address size %u, offset 0x%x:", mode_names[t->mode], t->form->name,
          t->operand_size > 8 ? "" : kinds[t->operand_size], t->address_size, t->offset);
    for (unsigned i = 0; i < t->length; i++)
        print(" %02x", t->code[i]);
    print(": %s 0x%lx by the CPU, 0x%lx emulated; flags in 0x%lx\n", what, ram, emulated, t->flags);
}

static const struct test *running;

/* An instruction of ours should never fault; where modes have no IDT of their own the machine just ends. */
static void faulted(struct frame *f)
{
    uint64_t cr2;
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    reported = 0;
    dump(running, "fault", f->vector, cr2);
    check(false, "no faults", "vector 0x%lx, error 0x%lx, rip 0x%lx", f->vector, f->error, f->rip);
    guest_end();
}

static void run_on(const struct test *t, uint64_t page, uint64_t xmm[8][2], struct result *r)
{
    uint8_t *stack = (uint8_t *)STACK_ADDRESS - 32;
    for (unsigned i = 0; i < 64; i++)
        stack[i] = (uint8_t)(i * 11);
    memcpy(scratch_page, scratch_before, 4096);
    window_to(page);
    load_xmm(xmm);
    running = t;
    run_test(t);
    store_xmm(r->xmm);
    for (unsigned i = 0; i < 16; i++)
        r->gpr[i] = STATE->out[i];
    r->flags = STATE->out_flags & ~(uint64_t)t->form->undefined;
    memcpy(r->stack, stack, 64);
    memcpy(r->scratch, scratch_page, 4096);
}

/* The two pages around the operand; only so much, since every read of the device's is an exit. */
static bool same_memory(const struct test *t)
{
    bool far = t->form->kind == STRING || t->form->kind == IO || t->form->kind == BITS;
    unsigned from = t->offset & ~7u, to = (t->offset + 24) & ~7u;
    if (far) {
        from -= 88;
        to += 88;
    }
    for (; from < to && from < 4096; from += 8) {
        uint64_t a = *(volatile uint64_t *)(ram_page + from), b = *(volatile uint64_t *)(device + from);
        if (a != b) {
            dump(t, "memory", a, b);
            *(volatile uint64_t *)(device + from) = a;
            return false;
        }
    }
    return true;
}

static bool same(const struct test *t, const struct result *a, const struct result *b)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
    for (unsigned i = 0; i < (t->mode == LONG64 ? 16 : 8); i++)
        if (a->gpr[i] != b->gpr[i])
            return dump(t, names[i], a->gpr[i], b->gpr[i]), false;
    if (a->flags != b->flags)
        return dump(t, "flags", a->flags, b->flags), false;
    if (memcmp(a->xmm, b->xmm, sizeof(a->xmm)))
        return dump(t, "xmm", 0, 0), false;
    if (memcmp(a->stack, b->stack, sizeof(a->stack)))
        return dump(t, "stack", 0, 0), false;
    if (memcmp(a->scratch, b->scratch, sizeof(a->scratch)))
        return dump(t, "the other operand's memory", 0, 0), false;
    return same_memory(t);
}

static bool run_pair(const struct test *t)
{
    static struct result by_cpu, emulated;
    uint64_t xmm[8][2];
    for (unsigned i = 0; i < 16; i++)
        xmm[i / 2][i % 2] = random64();
    run_on(t, (uintptr_t)ram_page, xmm, &by_cpu);
    run_on(t, (uintptr_t)device, xmm, &emulated);
    return same(t, &by_cpu, &emulated);
}

/* Every form and operand size in one mode, each in some random shapes. */
static void run_mode(enum mode m, unsigned shapes, unsigned *total)
{
    static struct test t;
    unsigned run = 0, bad = 0;
    for (unsigned f = 0; f < form_count; f++)
        for (unsigned size = 1; size <= 16; size *= 2)
            for (unsigned n = 0; (forms[f].sizes & size) && n < shapes; n++) {
                if (!build_test(&t, m, &forms[f], size))
                    break;
                run++;
                bad += !run_pair(&t);
            }
    bool pages = !memcmp(ram_page, device, 4096);
    print("%s: %u instructions, %u mismatches\n", mode_names[m], run, bad);
    check(!bad, mode_names[m], "%u of %u instructions came out otherwise", bad, run);
    check(pages, "the whole page is the same", "it is not");
    memcpy(device, ram_page, 4096);
    *total += run;
}

void guest_main(void)
{
    unsigned total = 0, shapes = (unsigned)option_number("shapes", 4), only = (unsigned)option_number("mode", MODES);
    device = test_page();
    print("test page at 0x%lx%s\n", (uint64_t)(uintptr_t)device, test_page_is_emulated() ? "" : ": no emulator here, an ordinary page");
    modes_init();
    on_vector(6, faulted);
    on_vector(13, faulted);
    on_vector(14, faulted);
    for (unsigned i = 0; i < 4096; i++)
        ram_page[i] = scratch_before[i] = (uint8_t)random32();
    memcpy(device, ram_page, 4096);
    for (unsigned m = 0; m < MODES; m++)
        if (only == MODES || only == m)
            run_mode((enum mode)m, shapes, &total);
    print("emulate: %u instructions run, failed checks: %u\n", total, failed);
}
