/*
 * QEMU's command line and the boot order; a QEMU that is missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dm-proxy/qemu/launch.h"

static char file[] = "/tmp/metronome-a,b-XXXXXX";
static char error[256];
static struct dm_words words;

static int make_file(void **state)
{
    (void)state;
    return close(mkstemp(file));
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(file);
}

static struct dm_launch machine(void)
{
    return (struct dm_launch){.memory = 256 << 20, .vcpus = 2};
}

static const char *line(const struct dm_launch *l)
{
    static char text[16384];

    text[0] = 0;
    if (!dm_launch_arguments(l, &words, error, sizeof error))
        return NULL;
    for (unsigned i = 0; i < words.count; i++) {
        strcat(text, words.word[i]);
        strcat(text, " ");
    }
    dm_words_free(&words);
    return text;
}

static void plain_machine(void **state)
{
    struct dm_launch l = machine();
    const char *text = line(&l);

    (void)state;
    assert_non_null(text);
    assert_non_null(strstr(text, "-xen-domid 1 -xen-attach -machine pc,accel=xen,max-ram-below-4g=3G,hpet=off"));
    assert_non_null(strstr(text, "-m 256M -smp 2"));
    assert_non_null(strstr(text, "-device VGA,addr=0x2 -display none"));
    assert_null(strstr(text, "-drive"));
}

static void drives_find_their_places(void **state)
{
    struct dm_launch l = machine();
    const char *text;

    (void)state;
    l.disks[l.disk_count++] = (struct dm_disk){.cdrom = true};
    l.disks[l.disk_count++] = (struct dm_disk){.path = file, .format = "qcow2"};
    l.disks[l.disk_count++] = (struct dm_disk){.path = file, .bus = DM_BUS_VIRTIO, .read_only = true};
    l.disks[l.disk_count++] = (struct dm_disk){.path = file, .bus = DM_BUS_AHCI};
    l.disks[l.disk_count++] = (struct dm_disk){.path = file};
    l.nics[l.nic_count++] = (struct dm_nic){.netdev = "tap,fd=9", .mac = "52:54:00:00:00:01"};
    text = line(&l);
    assert_non_null(text);
    assert_non_null(strstr(text, "if=none,id=drive0,media=cdrom -device ide-cd,bus=ide.1,unit=0,drive=drive0"));
    assert_non_null(strstr(text, "/tmp/metronome-a,,b-"));
    assert_non_null(strstr(text, "format=qcow2,read-only=off -device ide-hd,bus=ide.0,unit=0,drive=drive1"));
    assert_non_null(strstr(text, "read-only=on -device virtio-blk-pci,drive=drive2,addr=0x10"));
    assert_non_null(strstr(text, "-device ich9-ahci,id=ahci,addr=0x3 -device ide-hd,bus=ahci.0,drive=drive3"));
    assert_non_null(strstr(text, "-device ide-hd,bus=ide.0,unit=1,drive=drive4"));
    assert_non_null(strstr(text, "-netdev tap,id=net0,fd=9 -device e1000,netdev=net0,addr=0x4,mac=52:54:00:00:00:01"));
}

static void boot_order_names_places(void **state)
{
    struct dm_launch l = machine();
    char order[1024];

    (void)state;
    l.disks[l.disk_count++] = (struct dm_disk){.path = file, .bus = DM_BUS_VIRTIO};
    l.disks[l.disk_count++] = (struct dm_disk){.path = file};
    l.disks[l.disk_count++] = (struct dm_disk){.cdrom = true};
    l.disks[l.disk_count++] = (struct dm_disk){.path = file, .bus = DM_BUS_AHCI};
    l.nic_count = 1;
    l.boot_order = "ndca";
    dm_boot_order(&l, order, sizeof order);
    assert_string_equal(order, "/pci@i0cf8/ethernet@4/ethernet-phy@0\n"
                               "/pci@i0cf8/ide@1,1/drive@1/disk@0\n"
                               "/pci@i0cf8/scsi@10/disk@0,0\n"
                               "/pci@i0cf8/ide@1,1/drive@0/disk@0\n"
                               "/pci@i0cf8/pci8086,2922@3/drive@0/disk@0\n"
                               "/pci@i0cf8/isa@1/fdc@03f0/floppy@0\n");
    l.boot_order = NULL;
    dm_boot_order(&l, order, sizeof order);
    assert_string_equal(order, "");
}

static void refused(const struct dm_launch *l, const char *why)
{
    assert_null(line(l));
    if (!strstr(error, why))
        fail_msg("'%s' does not say '%s'", error, why);
}

static void what_cannot_be_is_refused(void **state)
{
    struct dm_launch l = machine();

    (void)state;
    l.memory++;
    refused(&l, "2 MiB");
    l = machine();
    l.vcpus = 65;
    refused(&l, "vCPUs");
    l = machine();
    for (unsigned i = 0; i < 5; i++)
        l.disks[l.disk_count++] = (struct dm_disk){.path = file};
    refused(&l, "four drives");
    l = machine();
    l.disks[l.disk_count++] = (struct dm_disk){.path = "/nowhere/disk.img"};
    refused(&l, "/nowhere/disk.img");
    l = machine();
    l.disks[l.disk_count++] = (struct dm_disk){.cdrom = true, .bus = DM_BUS_VIRTIO};
    refused(&l, "CD-ROM");
    l = machine();
    l.disk_count = DM_MAX_DISKS + 1;
    refused(&l, "too many");
}

static void a_missing_qemu_is_told(void **state)
{
    struct dm_launch l = machine();

    (void)state;
    setenv("METRONOME_QEMU", "/nowhere/qemu", 1);
    assert_int_equal(dm_launch(&l, error, sizeof error), -1);
    assert_non_null(strstr(error, "no QEMU"));
    setenv("METRONOME_DM_LIBRARY", "/tmp", 1);
    setenv("METRONOME_QEMU", "/tmp", 1); /* executable for access(), not for exec */
    assert_int_equal(dm_launch(&l, error, sizeof error), -1);
    assert_non_null(strstr(error, "cannot run /tmp"));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left behind */
    unsetenv("METRONOME_QEMU");
    assert_true(dm_find_qemu(error, sizeof error));
}

/* The network's own complaint reaches the caller, and its QEMU does not stay behind. */
static void a_network_that_cannot_start_is_told(void **state)
{
    struct dm_launch l = machine();

    (void)state;
    l.nics[l.nic_count++] = (struct dm_nic){.netdev = "user,hostfwd=nonsense"};
    assert_int_equal(dm_launch(&l, error, sizeof error), -1);
    assert_string_equal(error, "user network: cannot understand 'hostfwd=nonsense'");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    setenv("METRONOME_NET", "/nowhere/net", 1);
    assert_int_equal(dm_launch(&l, error, sizeof error), -1);
    assert_non_null(strstr(error, "no metronome-net"));
    unsetenv("METRONOME_NET");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_machine),
        cmocka_unit_test(drives_find_their_places),
        cmocka_unit_test(boot_order_names_places),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_network_that_cannot_start_is_told),
        cmocka_unit_test(a_missing_qemu_is_told),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
