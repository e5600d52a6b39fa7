/*
 * The device-model library inside a real, stock QEMU, with this test in the hypervisor's place: it owns the slot's
 * memory and both doorbells, puts requests into the shared page and reads the commands that come back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "public/domain.h"
#include "dm-proxy/qemu/launch.h"

#define MIB (1ull << 20)
#define RAM (64 * MIB)
#define EXTRA (32 * MIB)
#define GIB (1024 * MIB)
#define FIRMWARE_BYTES (256u << 10)
#define DISK_BYTES (8 * MIB)
#define PATIENCE_MS 4000

static uint8_t *slot;
static uint64_t slot_bytes, ram_low = RAM, ram_high;
static int mem_fd, wait_fd, ring_fd, qmp_fd, serial_fd, log_fd;
static pid_t qemu;
static char disk_path[] = "/tmp/metronome-dm-disk-XXXXXX";

/* What has been seen in the command ring. */
static struct metronome_command seen[4096];
static unsigned seen_count;
static bool asleep; /* the hypervisor takes no commands */

static struct metronome_domain_header *header(void)
{
    return (void *)(slot + METRONOME_DOMAIN_HEADER);
}

static struct metronome_notify *notify(void)
{
    return (void *)(slot + METRONOME_DOMAIN_NOTIFY);
}

static struct metronome_ioreq *ioreq(unsigned vcpu)
{
    return &((struct metronome_ioreq_page *)(slot + METRONOME_DOMAIN_IOREQ))->vcpu[vcpu];
}

static uint8_t *ram(uint64_t gpa)
{
    return slot + METRONOME_DOMAIN_ARENA + (gpa < 4 * GIB ? gpa : ram_low + gpa - 4 * GIB);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- The hypervisor's side of the rings ---- */

static void complete(const struct metronome_command *c)
{
    struct metronome_completion_ring *r = (void *)(slot + METRONOME_DOMAIN_COMPLETIONS);

    if (c->op == METRONOME_DM_DIRTY)
        memset(slot + METRONOME_DOMAIN_DIRTY, 0xff, (c->args[1] + 7) / 8);
    r->entry[r->ring.produced % METRONOME_RING_ENTRIES] = (struct metronome_completion){.sequence = c->sequence};
    __atomic_store_n(&r->ring.produced, r->ring.produced + 1, __ATOMIC_RELEASE);
    eventfd_write(wait_fd, 1);
}

static void take_commands(void)
{
    struct metronome_command_ring *r = (void *)(slot + METRONOME_DOMAIN_COMMANDS);
    uint32_t produced = __atomic_load_n(&r->ring.produced, __ATOMIC_ACQUIRE);

    assert_true(produced - r->ring.consumed <= METRONOME_RING_ENTRIES);
    if (asleep)
        return;
    while (r->ring.consumed != produced) {
        struct metronome_command c = r->entry[r->ring.consumed % METRONOME_RING_ENTRIES];
        __atomic_store_n(&r->ring.consumed, r->ring.consumed + 1, __ATOMIC_RELEASE);
        assert_true(seen_count < sizeof seen / sizeof seen[0]);
        seen[seen_count++] = c;
        if (c.flags & METRONOME_COMMAND_COMPLETE)
            complete(&c);
    }
}

static const struct metronome_command *find_from(unsigned from, uint32_t op)
{
    for (unsigned i = from; i < seen_count; i++)
        if (seen[i].op == op)
            return &seen[i];
    return NULL;
}

static void sleep_until_rung(int ms)
{
    struct pollfd p = {.fd = ring_fd, .events = POLLIN};
    eventfd_t value;

    if (poll(&p, 1, ms) > 0)
        eventfd_read(ring_fd, &value);
    take_commands();
}

static const struct metronome_command *wait_for(unsigned from, uint32_t op)
{
    uint64_t deadline = now_ms() + PATIENCE_MS;

    take_commands();
    while (!find_from(from, op) && now_ms() < deadline)
        sleep_until_rung(20);
    return find_from(from, op);
}

/* ---- Requests ---- */

static void post(unsigned vcpu, struct metronome_ioreq r)
{
    struct metronome_ioreq *shared = ioreq(vcpu);

    r.vp_eport = shared->vp_eport;
    r.state_dir_df &= (uint8_t)~METRONOME_IOREQ_STATE_MASK;
    *shared = r;
    __atomic_store_n(&shared->state_dir_df, (uint8_t)(r.state_dir_df | METRONOME_IOREQ_READY), __ATOMIC_RELEASE);
    __atomic_fetch_or(&notify()->vcpu_pending, 1ull << vcpu, __ATOMIC_SEQ_CST);
}

static bool answered(unsigned vcpu)
{
    uint8_t state = __atomic_load_n(&ioreq(vcpu)->state_dir_df, __ATOMIC_ACQUIRE) & METRONOME_IOREQ_STATE_MASK;

    return state == METRONOME_IOREQ_RESPONSE;
}

static uint64_t wait_answer(unsigned vcpu)
{
    uint64_t deadline = now_ms() + PATIENCE_MS;

    while (!answered(vcpu) && now_ms() < deadline)
        sleep_until_rung(20);
    assert_true(answered(vcpu));
    take_commands();
    return ioreq(vcpu)->data;
}

static uint64_t request(struct metronome_ioreq r)
{
    post(0, r);
    eventfd_write(wait_fd, 1);
    return wait_answer(0);
}

static uint32_t in(uint16_t port, unsigned size)
{
    return (uint32_t)request((struct metronome_ioreq){
        .addr = port, .size = size, .count = 1, .type = METRONOME_IOREQ_PIO, .state_dir_df = METRONOME_IOREQ_READ});
}

static void out(uint16_t port, unsigned size, uint32_t value)
{
    request(
        (struct metronome_ioreq){.addr = port, .data = value, .size = size, .count = 1, .type = METRONOME_IOREQ_PIO});
}

static uint64_t mmio_read(uint64_t gpa, unsigned size)
{
    return request((struct metronome_ioreq){
        .addr = gpa, .size = size, .count = 1, .type = METRONOME_IOREQ_COPY, .state_dir_df = METRONOME_IOREQ_READ});
}

static void rep_in(uint16_t port, unsigned size, uint32_t count, uint64_t gpa)
{
    request((struct metronome_ioreq){.addr = port,
                                     .data = gpa,
                                     .size = size,
                                     .count = count,
                                     .type = METRONOME_IOREQ_PIO,
                                     .state_dir_df = METRONOME_IOREQ_READ | METRONOME_IOREQ_DATA_IS_PTR});
}

static uint32_t config_read(unsigned device, unsigned function, unsigned reg)
{
    out(0xcf8, 4, 0x80000000u | device << 11 | function << 8 | reg);
    return in(0xcfc, 4);
}

static void config_write(unsigned device, unsigned function, unsigned reg, uint32_t value)
{
    out(0xcf8, 4, 0x80000000u | device << 11 | function << 8 | reg);
    out(0xcfc, 4, value);
}

/* ---- QMP ---- */

static bool qmp_reads(const char *wanted)
{
    static char text[16384];
    static size_t have;
    uint64_t deadline = now_ms() + PATIENCE_MS;

    while (now_ms() < deadline) {
        struct pollfd p = {.fd = qmp_fd, .events = POLLIN};
        if (poll(&p, 1, 20) > 0) {
            ssize_t n = read(qmp_fd, text + have, sizeof text - 1 - have);
            have += n > 0 ? (size_t)n : 0;
            text[have] = 0;
        }
        take_commands();
        char *at = strstr(text, wanted);
        if (at) {
            at += strlen(wanted);
            have -= (size_t)(at - text);
            memmove(text, at, have + 1);
            return true;
        }
    }
    fprintf(stderr, "QMP said: %s\n", text);
    return false;
}

static void qmp_say(const char *text)
{
    assert_int_equal(write(qmp_fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* ---- Start and end ---- */

static void make_slot(void)
{
    struct metronome_domain_header h = {.magic = METRONOME_DOMAIN_MAGIC,
                                        .version = METRONOME_ABI_VERSION,
                                        .flags = METRONOME_DOMAIN_HAS_DM,
                                        .vcpus = 2,
                                        .ram_low = ram_low,
                                        .ram_high = ram_high,
                                        .extra = ram_low + ram_high,
                                        .extra_bytes = EXTRA,
                                        .firmware = ram_low + ram_high,
                                        .firmware_bytes = FIRMWARE_BYTES,
                                        .name = "test"};

    slot_bytes = METRONOME_DOMAIN_ARENA + h.extra + h.extra_bytes;
    mem_fd = memfd_create("slot", MFD_CLOEXEC);
    assert_int_equal(ftruncate(mem_fd, slot_bytes), 0);
    slot = mmap(NULL, slot_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem_fd, 0);
    assert_ptr_not_equal(slot, MAP_FAILED);
    *header() = h;
    notify()->hypervisor_waits = 1;
    wait_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static uint8_t disk_byte(uint64_t at)
{
    return (uint8_t)(at ^ at >> 9 ^ 0x5a);
}

static void make_disk(void)
{
    static uint8_t content[DISK_BYTES];
    int fd;

    unlink(disk_path);
    strcpy(disk_path + strlen(disk_path) - 6, "XXXXXX");
    fd = mkstemp(disk_path);

    for (uint64_t i = 0; i < DISK_BYTES; i++)
        content[i] = disk_byte(i);
    assert_int_equal(write(fd, content, sizeof content), (ssize_t)sizeof content);
    close(fd);
}

static int start_qemu(void **state)
{
    struct dm_launch l = {.memory = ram_low + ram_high, .vcpus = 2, .name = "a,b"};
    int qmp[2], serial[2], log[2];
    char error[256] = "";

    (void)state;
    seen_count = 0;
    make_slot();
    make_disk();
    assert_int_equal(pipe2(log, O_CLOEXEC), 0);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, serial);
    l.mem_fd = mem_fd;
    l.wait_fd = wait_fd;
    l.ring_fd = ring_fd;
    l.qmp.fd = qmp[1];
    l.serial.fd = serial[1];
    l.disks[l.disk_count++] = (struct dm_disk){.path = disk_path};
    l.nics[l.nic_count++] = (struct dm_nic){.model = "e1000", .netdev = "user,restrict=on"};
    l.boot_menu_wait_ms = 3000;
    l.patience_s = 2;
    l.log_fd = log[1];
    qemu = dm_launch(&l, error, sizeof error);
    if (qemu < 0)
        fprintf(stderr, "%s\n", error);
    close(qmp[1]);
    close(serial[1]);
    close(log[1]);
    log_fd = log[0];
    qmp_fd = qmp[0];
    serial_fd = serial[0];
    return qemu < 0 || !wait_for(0, METRONOME_DM_READY);
}

static int stop_qemu(void **state)
{
    (void)state;
    unlink(disk_path);
    if (qemu > 0) {
        kill(qemu, SIGKILL);
        waitpid(qemu, NULL, 0);
    }
    qemu = -1;
    return 0;
}

/* ---- The tests, in order: they share one QEMU ---- */

static void startup_commands_fit_the_ring(void **state)
{
    unsigned ready = (unsigned)(find_from(0, METRONOME_DM_READY) - seen);

    (void)state;
    print_message("commands before DM_READY: %u\n", ready);
    assert_true(ready < METRONOME_RING_ENTRIES / 2);
    for (unsigned i = 0; i < seen_count; i++)
        assert_int_not_equal(seen[i].op, METRONOME_DM_UNMAP);
}

static void the_board_is_there(void **state)
{
    (void)state;
    assert_int_equal(config_read(0, 0, 0), 0x12378086);
    assert_int_equal(config_read(1, 0, 0), 0x70008086);
    assert_int_equal(config_read(1, 1, 0), 0x70108086);
    assert_int_equal(config_read(1, 3, 0), 0x71138086);
    assert_int_equal(config_read(2, 0, 0), 0x11111234);
    assert_int_equal(config_read(4, 0, 0), 0x100e8086);
    assert_int_equal(config_read(9, 0, 0), 0xffffffff);
}

/* QEMU ends with hw_error() on these. */
static void hostile_requests_are_refused(void **state)
{
    static const struct metronome_ioreq bad[] = {
        {.addr = 0xcf8, .size = 8, .count = 1, .type = METRONOME_IOREQ_PIO},
        {.addr = 0xcf8, .size = 0, .count = 1, .type = METRONOME_IOREQ_PIO},
        {.addr = 0xcf8, .size = 3, .count = 1, .type = METRONOME_IOREQ_PIO},
        {.addr = 0x1cf8, .size = 0x80000004, .count = 1, .type = METRONOME_IOREQ_PIO},
        {.addr = 0x10000, .size = 4, .count = 1, .type = METRONOME_IOREQ_PIO},
        {.addr = 0xa0000, .size = 16, .count = 1, .type = METRONOME_IOREQ_COPY},
        {.addr = 0xa0000, .size = 4, .count = 0xffffffff, .type = METRONOME_IOREQ_COPY},
        {.addr = 0, .size = 8, .count = 1, .type = METRONOME_IOREQ_PCI_CONFIG},
        {.addr = 0, .size = 4, .count = 1, .type = 3},
        {.addr = 0, .size = 4, .count = 1, .type = 200},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct metronome_ioreq r = bad[i];
        request(r);
        r.state_dir_df = METRONOME_IOREQ_READ;
        assert_int_equal(request(r), UINT64_MAX);
    }
    assert_int_equal(config_read(0, 0, 0), 0x12378086);
}

static void fw_cfg_answers(void **state)
{
    (void)state;
    out(0x510, 2, 0);
    assert_int_equal(in(0x511, 1), 'Q');
    rep_in(0x511, 1, 3, 0x5000);
    assert_memory_equal(ram(0x5000), "EMU", 3);
    assert_int_equal(in(0x514, 4), 0x554d4551);
    assert_int_equal(in(0x518, 4), 0x47464320);
    out(0x510, 2, 5);
    assert_int_equal(in(0x511, 1), 2);
}

static void put_be(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static void fw_cfg_dma_reads_across_pages(void **state)
{
    uint64_t descriptor = 0x6ffa, target = 0x7ffe; /* both cross a page */

    (void)state;
    put_be(ram(descriptor), 0x0019000a, 4); /* select the directory, read */
    put_be(ram(descriptor) + 4, 4 + 2 * 64, 4);
    put_be(ram(descriptor) + 8, target, 8);
    out(0x514, 4, 0);
    out(0x518, 4, __builtin_bswap32((uint32_t)descriptor));
    assert_int_equal(*ram(descriptor), 0);
    assert_int_equal(*ram(target + 3), 2); /* files */
    assert_string_equal((char *)ram(target + 4 + 8), "etc/boot-menu-wait");
    assert_string_equal((char *)ram(target + 4 + 64 + 8), "etc/e820");
}

static void ide_wait(void)
{
    uint64_t deadline = now_ms() + PATIENCE_MS;

    while ((in(0x1f7, 1) & 0x88) != 0x08)
        assert_true(now_ms() < deadline);
}

static void ide_identifies_by_rep_insw(void **state)
{
    unsigned from = seen_count;

    (void)state;
    out(0x1f6, 1, 0xe0);
    out(0x1f7, 1, 0xec);
    assert_non_null(wait_for(from, METRONOME_DM_SET_ISA_IRQ));
    assert_int_equal(find_from(from, METRONOME_DM_SET_ISA_IRQ)->args[0], 14);
    assert_int_equal(find_from(from, METRONOME_DM_SET_ISA_IRQ)->args[1], 1);
    ide_wait();
    rep_in(0x1f0, 2, 256, 0x10000 - 2); /* crosses a page too */
    uint8_t *id = ram(0x10000 - 2);
    assert_memory_equal(id + 54, "EQUMH RADDSI K", 14); /* "QEMU HARDDISK", bytes swapped */
    assert_int_equal(*(uint16_t *)(void *)(id + 120) | *(uint16_t *)(void *)(id + 122) << 16, DISK_BYTES / 512);
}

static void ide_dma_reads_the_disk(void **state)
{
    const uint64_t table = 0x20000, target = 0x30000;
    const uint32_t sector = 1000, sectors = 64;
    uint64_t deadline = now_ms() + PATIENCE_MS;

    (void)state;
    config_write(1, 1, 0x20, 0xc001);                      /* bus master registers */
    config_write(1, 1, 0x04, config_read(1, 1, 0x04) | 5); /* I/O, bus master */
    memcpy(ram(table), (uint32_t[]){(uint32_t)target, 0x80000000u | (sectors * 512 & 0xffff)}, 8);
    out(0xc004, 4, (uint32_t)table);
    out(0xc000, 1, 0x08);
    out(0xc002, 1, 0x06); /* of earlier commands */
    out(0x1f2, 1, sectors);
    out(0x1f3, 1, sector & 0xff);
    out(0x1f4, 1, sector >> 8);
    out(0x1f5, 1, 0);
    out(0x1f6, 1, 0xe0);
    out(0x1f7, 1, 0xc8);
    out(0xc000, 1, 0x09);
    while (!(in(0xc002, 1) & 4))
        assert_true(now_ms() < deadline);
    for (uint64_t i = 0; i < sectors * 512; i++)
        assert_int_equal(*ram(target + i), disk_byte(sector * 512 + i));
}

static void posted(uint64_t gpa, unsigned code, uint32_t value)
{
    struct metronome_bufioreq_page *b = (void *)(slot + METRONOME_DOMAIN_BUFIOREQ);

    b->slot[b->write_pointer % METRONOME_BUFIOREQ_SLOTS] =
        METRONOME_IOREQ_COPY | code << 10 | gpa << 12 | (uint64_t)value << 32;
    __atomic_store_n(&b->write_pointer, b->write_pointer + 1, __ATOMIC_RELEASE);
    if (!__atomic_exchange_n(&notify()->buffered_pending, 1, __ATOMIC_SEQ_CST))
        eventfd_write(wait_fd, 1);
}

/* The VGA's frame buffer, through the BAR where it has one and through the legacy window. */
static void vga_aliases_follow_the_bar(void **state)
{
    unsigned from = seen_count;

    (void)state;
    config_write(2, 0, 0x10, 0xe0000000);
    config_write(2, 0, 0x04, 3);
    const struct metronome_command *c = wait_for(from, METRONOME_DM_MAP);
    assert_non_null(c);
    assert_int_equal(c->args[0], 0xe0000);
    assert_true(c->args[1] >= RAM + FIRMWARE_BYTES && c->args[1] + 16 * MIB <= RAM + EXTRA);
    assert_int_equal(c->args[1] % (2 * MIB), 0);
    assert_int_equal(c->args[2], 16 * MIB / 4096);
    uint64_t vram = c->args[1];

    from = seen_count;
    config_write(2, 0, 0x04, 0); /* decode off: nothing is seen there any more */
    c = wait_for(from, METRONOME_DM_UNMAP);
    assert_non_null(c);
    assert_int_equal(c->args[0], 0xe0000);

    from = seen_count;
    config_write(2, 0, 0x04, 3); /* and on again, of which QEMU says nothing */
    c = wait_for(from, METRONOME_DM_MAP);
    assert_non_null(c);
    assert_int_equal(c->args[1], vram);

    from = seen_count;
    config_write(2, 0, 0x10, 0xd0000000); /* a new place */
    assert_non_null(wait_for(from, METRONOME_DM_UNMAP));
    c = wait_for(from, METRONOME_DM_MAP);
    assert_int_equal(c->args[0], 0xd0000);
    assert_int_equal(c->args[1], vram);

    /* Linear 256-colour access: posted writes through the window land in the same memory. */
    out(0x3c4, 2, 0x0e04); /* chain 4, no odd/even */
    out(0x3c4, 2, 0x0f02);
    out(0x3ce, 2, 0x0506);
    out(0x3ce, 2, 0x4005);
    posted(0xa0010, 2, 0x11223344);
    posted(0xa0014, 0, 0x55);
    assert_int_equal(mmio_read(0xa0010, 4), 0x11223344);
    assert_int_equal(mmio_read(0xa0014, 1), 0x55);
    assert_memory_equal(slot + METRONOME_DOMAIN_ARENA + vram + 0x10, "\x44\x33\x22\x11\x55", 5);
}

static void posted_writes_need_no_request(void **state)
{
    struct metronome_bufioreq_page *b = (void *)(slot + METRONOME_DOMAIN_BUFIOREQ);

    (void)state;
    for (unsigned round = 0; round < 40; round++) {
        uint64_t deadline = now_ms() + PATIENCE_MS;
        for (unsigned i = 0; i < 100; i++)
            posted(0xa0100 + i, 0, i);
        while (__atomic_load_n(&b->read_pointer, __ATOMIC_ACQUIRE) != b->write_pointer && now_ms() < deadline)
            usleep(500);
        assert_int_equal(b->read_pointer, b->write_pointer);
        usleep(round * 7000 % 31000); /* now within QEMU's polling time, now after it */
        if (round == 8)
            usleep(250000);
    }
    assert_int_equal(mmio_read(0xa0163, 1), 99);
}

static void two_vcpus_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct metronome_ioreq r = {.addr = 0x1f2, .size = 1, .count = 1, .state_dir_df = METRONOME_IOREQ_READ};
        post(0, r);
        r.addr = 0x511; /* one for QEMU, one for the library */
        post(1, r);
        eventfd_write(wait_fd, 1);
        wait_answer(0);
        wait_answer(1);
    }
}

static void intx_and_links(void **state)
{
    unsigned from = seen_count;

    (void)state;
    config_write(1, 0, 0x60, 0x0b0a800b);
    const struct metronome_command *c = wait_for(from, METRONOME_DM_SET_PCI_LINK);
    assert_non_null(c);
    for (unsigned link = 0; link < 4; link++)
        assert_int_equal(c[link].args[0], link);
    assert_int_equal(c[0].args[1], 11);
    assert_int_equal(c[1].args[1], 0);

    config_write(4, 0, 0x10, 0xe8000000);
    config_write(4, 0, 0x04, 7);
    from = seen_count;
    request((struct metronome_ioreq){
        .addr = 0xe80000d0, .data = 4, .size = 4, .count = 1, .type = METRONOME_IOREQ_COPY}); /* IMS */
    request((struct metronome_ioreq){
        .addr = 0xe80000c8, .data = 4, .size = 4, .count = 1, .type = METRONOME_IOREQ_COPY}); /* ICS */
    c = wait_for(from, METRONOME_DM_SET_PCI_INTX);
    assert_non_null(c);
    assert_int_equal(c->args[0], 4);
    assert_int_equal(c->args[1], 0);
    assert_int_equal(c->args[2], 1);
    from = seen_count;
    mmio_read(0xe80000c0, 4); /* ICR: reading acknowledges, and the level must be down before the vCPU goes on */
    assert_non_null(find_from(from, METRONOME_DM_SET_PCI_INTX));
    assert_int_equal(find_from(from, METRONOME_DM_SET_PCI_INTX)->args[2], 0);
}

static void serial_port_reaches_its_channel(void **state)
{
    char c = 0;
    struct pollfd p = {.fd = serial_fd, .events = POLLIN};

    (void)state;
    out(0x3f8, 1, 'M');
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    assert_int_equal(read(serial_fd, &c, 1), 1);
    assert_int_equal(c, 'M');
}

static void set_vbe(unsigned index, unsigned value)
{
    out(0x1ce, 2, index);
    out(0x1cf, 2, value);
}

static void screendump_asks_for_dirty_pages(void **state)
{
    (void)state;
    set_vbe(1, 640);
    set_vbe(2, 480);
    set_vbe(3, 32);
    set_vbe(4, 0x41); /* linear frame buffer */
    in(0x3da, 1);
    out(0x3c0, 1, 0x20); /* the screen is on */
    assert_true(qmp_reads("QMP"));
    qmp_say("{'execute':'qmp_capabilities'}");
    assert_true(qmp_reads("return"));
    qmp_say("{'execute':'query-status'}");
    assert_true(qmp_reads("\"running\""));
    unsigned from = seen_count;
    for (unsigned i = 0; i < 2; i++) { /* the first redraws everything, without asking */
        qmp_say("{'execute':'screendump','arguments':{'filename':'/dev/null'}}");
        assert_true(qmp_reads("return"));
    }
    assert_non_null(find_from(from, METRONOME_DM_DIRTY));
    assert_int_equal(find_from(from, METRONOME_DM_DIRTY)->args[0], 0xd0000);
}

/* The reset button of the PIIX3, as a guest presses it. */
static void guest_reset(void **state)
{
    unsigned from = seen_count;

    (void)state;
    out(0xcf9, 1, 6);
    const struct metronome_command *down = wait_for(from, METRONOME_DM_SHUTDOWN),
                                   *done = wait_for(from, METRONOME_DM_RESET_DONE);
    assert_non_null(down);
    assert_non_null(done);
    assert_true(down < done);
    assert_int_equal(down->args[0], METRONOME_SHUTDOWN_REBOOT);
    assert_true(qmp_reads("RESET"));
    assert_int_equal(config_read(1, 0, 0x60), 0x80808080);
    assert_int_equal(config_read(0, 0, 0), 0x12378086);
}

/* The daemon's way: QEMU itself says nothing of a reset that QMP asks for. */
static void reset_by_qmp(void **state)
{
    unsigned from = seen_count;

    (void)state;
    qmp_say("{'execute':'system_reset'}");
    assert_true(qmp_reads("\"RESET\""));
    assert_null(find_from(from, METRONOME_DM_RESET_DONE));
    qmp_say("{'execute':'stop'}{'execute':'cont'}");
    assert_non_null(wait_for(from, METRONOME_DM_RESET_DONE));
    assert_null(find_from(from, METRONOME_DM_SHUTDOWN));
    assert_true(qmp_reads("\"RESUME\""));
}

static double nanoseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Each turn (CHECK POWER MODE, read status) raises and lowers IRQ 14: two commands. The last request waits if the ring
 * is full. */
static bool irq_turn(void)
{
    static const struct metronome_ioreq turn[] = {
        {.addr = 0x1f7, .data = 0xe5, .size = 1, .count = 1},
        {.addr = 0x1f7, .size = 1, .count = 1, .state_dir_df = METRONOME_IOREQ_READ},
    };

    for (unsigned i = 0; i < 2; i++) {
        uint64_t deadline = now_ms() + 700;
        post(0, turn[i]);
        eventfd_write(wait_fd, 1);
        while (!answered(0) && now_ms() < deadline)
            sleep_until_rung(5);
        if (!answered(0))
            return false;
    }
    return true;
}

static void fill_the_ring(void)
{
    unsigned turns = 0;

    take_commands();
    asleep = true;
    while (irq_turn())
        assert_true(++turns <= METRONOME_RING_ENTRIES / 2);
    assert_true(turns >= METRONOME_RING_ENTRIES / 2 - 2);
}

static void a_full_ring_waits(void **state)
{
    unsigned from = seen_count, level = 1;

    (void)state;
    fill_the_ring();
    asleep = false;
    wait_answer(0);
    for (unsigned i = from; i < seen_count; i++)
        if (seen[i].op == METRONOME_DM_SET_ISA_IRQ && seen[i].args[0] == 14) {
            assert_int_equal(seen[i].args[1], level); /* none lost, none out of turn */
            level ^= 1;
        }
    in(0x1f7, 1);
}

static void latency(void **state)
{
    enum { N = 3000 };
    double start;

    (void)state;
    start = nanoseconds();
    for (unsigned i = 0; i < N; i++)
        in(0x1f2, 1);
    print_message("port read in QEMU:      %.1f us\n", (nanoseconds() - start) / N / 1e3);
    start = nanoseconds();
    for (unsigned i = 0; i < N; i++)
        in(0x511, 1);
    print_message("port read in fw_cfg:    %.1f us\n", (nanoseconds() - start) / N / 1e3);
    start = nanoseconds();
    for (unsigned i = 0; i < N / 100; i++)
        rep_in(0x1f2, 1, 4096, 0x40000);
    print_message("one element of REP INS: %.2f us\n", (nanoseconds() - start) / (N / 100) / 4096 / 1e3);
}

static int wait_for_end(void)
{
    int status = 0;
    uint64_t deadline = now_ms() + PATIENCE_MS;

    while (waitpid(qemu, &status, WNOHANG) == 0 && now_ms() < deadline)
        sleep_until_rung(10);
    assert_int_equal(kill(qemu, 0), -1);
    qemu = -1;
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void quits_when_told(void **state)
{
    (void)state;
    qmp_say("{'execute':'quit'}");
    assert_int_equal(wait_for_end(), 0);
}

/* Another QEMU, whose hypervisor falls silent. */
static void a_dead_hypervisor_is_told(void **state)
{
    char text[4096];
    ssize_t n;

    asleep = false;
    assert_int_equal(start_qemu(state), 0);
    fill_the_ring();
    assert_int_equal(wait_for_end(), 1);
    n = read(log_fd, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = 0;
    assert_non_null(strstr(text, "the hypervisor has not taken a command for 2 s"));
}

/* A machine of 3 + 1 GiB. */
static void pages_above_4_gib(void **state)
{
    const uint64_t high = 4 * GIB + 0x5ffe; /* crosses a page */

    (void)state;
    asleep = false;
    ram_low = 3 * GIB;
    ram_high = 1 * GIB;
    assert_int_equal(start_qemu(state), 0);
    out(0x1f6, 1, 0xe0);
    out(0x1f7, 1, 0xec);
    ide_wait();
    rep_in(0x1f0, 2, 256, high);
    assert_memory_equal(ram(high) + 54, "EQUMH RADDSI K", 14);
    out(0x510, 2, 0);
    rep_in(0x511, 1, 4, 5 * GIB - 4);
    assert_memory_equal(ram(5 * GIB - 4), "QEMU", 4);
    rep_in(0x511, 1, 4, 5 * GIB - 2); /* runs out of RAM: nothing else is hit */
    unsigned from = seen_count;
    config_write(2, 0, 0x10, 0xe0000000);
    config_write(2, 0, 0x04, 3);
    assert_non_null(wait_for(from, METRONOME_DM_MAP));
    assert_true(find_from(from, METRONOME_DM_MAP)->args[1] >= 4 * GIB + FIRMWARE_BYTES);
    stop_qemu(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(startup_commands_fit_the_ring),
        cmocka_unit_test(the_board_is_there),
        cmocka_unit_test(hostile_requests_are_refused),
        cmocka_unit_test(fw_cfg_answers),
        cmocka_unit_test(fw_cfg_dma_reads_across_pages),
        cmocka_unit_test(ide_identifies_by_rep_insw),
        cmocka_unit_test(ide_dma_reads_the_disk),
        cmocka_unit_test(vga_aliases_follow_the_bar),
        cmocka_unit_test(posted_writes_need_no_request),
        cmocka_unit_test(two_vcpus_at_once),
        cmocka_unit_test(intx_and_links),
        cmocka_unit_test(serial_port_reaches_its_channel),
        cmocka_unit_test(screendump_asks_for_dirty_pages),
        cmocka_unit_test(guest_reset),
        cmocka_unit_test(reset_by_qmp),
        cmocka_unit_test(a_full_ring_waits),
        cmocka_unit_test(latency),
        cmocka_unit_test(quits_when_told),
        cmocka_unit_test(a_dead_hypervisor_is_told),
        cmocka_unit_test(pages_above_4_gib),
    };

    return cmocka_run_group_tests(tests, start_qemu, stop_qemu);
}
