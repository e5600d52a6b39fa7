#!/bin/bash
# Linux as a guest without a device model: Debian's kernel boots from a module by the Linux boot protocol, finds the devices
# inside the hypervisor by our ACPI tables, gives a shell on the built-in serial port and powers itself off.
# limit: 300
cd "$(dirname "$0")/../.." || exit 2
build=${B:-build}
log=$(mktemp)
trap 'rm -f "$log"; [ -z "$qemu" ] || kill "$qemu" 2>/dev/null' EXIT

# Commands go in when the shell is there; each answer ends in a word that the typed line does not show.
coproc machine {
    exec timeout 200 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -nodefaults -display none -no-reboot -serial stdio \
        -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$build/metronome.elf" -append exit=0xf4 \
        -initrd "$build/images/vmlinuz console=ttyS0 loglevel=7,$build/images/initramfs.cpio.gz" 2>&1
}
qemu=$machine_PID
while IFS= read -r -t 150 line <&"${machine[0]}"; do
    printf '%s\n' "${line%$'\r'}" >>"$log"
    case $line in
    *metronome-guest:\ ready*) echo 'cat /proc/interrupts; echo do""ne' >&"${machine[1]}" ;;
    done*) echo poweroff >&"${machine[1]}" ;;
    esac
done
wait "$qemu"
qemu=
cat "$log"

# What must have been printed: name | expression
while IFS='|' read -r name expression; do
    if grep -qaE "$expression" "$log"; then
        echo "ok linux module: $name"
    else
        echo "not ok linux module: $name: no '$expression'"
    fi
done <<'END'
the shell is reached|metronome-guest: ready
its I/O APIC|IOAPIC\[0\]: apic_id 0, version 32, address 0xfec00000, GSI 0-23
its HPET|hpet0: 8 comparators, 64-bit 14\.318182 MHz counter
its PM timer|ACPI: PM-Timer IO Port: 0x608
its TSC-deadline timer|TSC deadline timer available
its serial port|ttyS0 at I/O 0x3f8 \(irq = 4.*16550A
its RTC|rtc_cmos .*registered as rtc0
its serial port's interrupts|IO-APIC +4-edge +ttyS0
local timer interrupts|LOC: +[1-9]
it powers itself off|^domain 0 \(module\): powered off
END
if grep -aE 'spurious|nobody cared|ACPI (BIOS )?(Error|Warning)|BUG:|WARNING:|Call Trace|soft lockup' "$log"; then
    echo "not ok linux module: no complaints"
else
    echo "ok linux module: no complaints"
fi
