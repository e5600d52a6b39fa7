#!/bin/bash
# The hypervisor's own boot: every loader, every number of CPUs, memory, clocks, and that a failure is a readable panic.
# usage: test_boot.sh [BUILD-DIRECTORY] [NAME...]    one line for each case; ends 0 when all are ok
cd "$(dirname "$0")/../.." || exit 2
build=${1:-build}
shift
only=" $* "
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"; [ -z "$server" ] || kill "$server" 2>/dev/null' EXIT
failed=0
server=
seconds=20

# check NAME STATUS OUTPUT-FILE WANTED-STATUS REGEX...    a REGEX that starts with ! must not match
check() {
    local name=$1 status=$2 file=$3 wanted=$4 regex reason=
    shift 4
    [ "$status" = "$wanted" ] || reason="ended with $status, not $wanted"
    for regex in "$@"; do
        if [ "${regex#!}" != "$regex" ]; then
            ! grep -qE -- "${regex#!}" "$file" || reason=${reason:-"printed '${regex#!}'"}
        else
            grep -qE -- "$regex" "$file" || reason=${reason:-"no '$regex'"}
        fi
    done
    if [ -z "$reason" ]; then
        echo "ok $name"
    else
        echo "not ok $name: $reason"
        sed 's/^/    /' "$file" | head -60
        failed=1
    fi
}

wanted() {
    [ "$only" = "  " ] || [[ $only == *" $1 "* ]]
}

# qemu OUTPUT ARGUMENT...
qemu() {
    local output=$1
    shift
    timeout $seconds qemu-system-x86_64 -accel tcg -cpu max -m 256 -display none -nodefaults -no-reboot -serial stdio \
        -device isa-debug-exit,iobase=0xf4,iosize=1 "$@" </dev/null 2>&1 | tr -d '\r' >"$output"
    return "${PIPESTATUS[0]}"
}

# case NAME OPTIONS "QEMU-ARGUMENTS" REGEX...    what `test=` or the boot must print; the machine ends well
good() {
    local name=$1 options=$2 arguments=$3
    wanted "$name" || return
    shift 3
    # shellcheck disable=SC2086
    qemu "$tmp/$name" $arguments -append "exit=0xf4 $options"
    check "$name" $? "$tmp/$name" 1 'W\^X checked' '!panic' "$@"
}

# What must end in a panic: once, with registers and a symbolised backtrace.
bad() {
    local name=$1 options=$2 arguments=$3
    wanted "$name" || return
    shift 3
    # shellcheck disable=SC2086
    qemu "$tmp/$name" -kernel "$build/metronome.elf" $arguments -append "exit=0xf4 $options"
    check "$name" $? "$tmp/$name" 3 '^RIP [0-9a-f]{16}' 'CR3 [0-9a-f]{16}' '^backtrace:' '!panic within a panic' "$@"
    [ "$(grep -c '^panic on' "$tmp/$name")" = 1 ] || { echo "not ok $name-once: printed more than one panic"; failed=1; }
}

elf="-kernel $build/metronome.elf"

loaders() {
    good multiboot1-pc test=boot "$elf" 'booted by multiboot1' '1 CPU online'
    good multiboot1-q35 test=boot "$elf -machine q35 -smp 2" 'booted by multiboot1' '2 CPUs online'
    good pvh-pc test=boot "-kernel $build/metronome.pvh" 'booted by PVH' '1 CPU online'
    good pvh-q35 test=boot "-kernel $build/metronome.pvh -machine q35 -smp 4" 'booted by PVH' '4 CPUs online'
    echo one >"$tmp/module1"
    echo three >"$tmp/module2"
    good multiboot1-modules "test=boot loglevel=debug" "$elf -initrd $tmp/module1,$tmp/module2" '2 modules' \
        "^command line 'exit=0xf4 test=boot loglevel=debug'" "module 0: 0x[0-9a-f]+ \+ 0x4 ''" "module 1: .* \+ 0x6 ''"
}

# Words with spaces in them do not go through good().
module_lines() {
    local name=multiboot1-module-line
    wanted $name || return
    qemu "$tmp/$name" -kernel "$build/metronome.elf" -initrd "$tmp/module1 a=b c" -append "exit=0xf4 test=boot loglevel=debug"
    check $name $? "$tmp/$name" 1 "module 0: 0x[0-9a-f]+ \+ 0x4 'a=b c'"
}

iso() {
    local name machine
    wanted multiboot2-iso-pc || wanted multiboot2-iso-q35 || return
    arch/x86/boot/make-iso "$tmp/iso" "$build/metronome.elf" -a "exit=0xf4 test=boot loglevel=debug" -m "$tmp/module1 hello world"
    for machine in pc q35; do
        name=multiboot2-iso-$machine
        wanted $name || continue
        qemu "$tmp/$name" -machine $machine -vga std -smp 2 -cdrom "$tmp/iso"
        check $name $? "$tmp/$name" 1 'booted by multiboot2' '2 CPUs online' 'W\^X checked' "module 0: .* 'hello world'" '!panic'
    done
}

machines() {
    good cpus-2 test=boot "$elf -smp 2" '2 CPUs online'
    good cpus-4 test=boot "$elf -smp 4" '4 CPUs online'
    good cpus-64 test=boot "$elf -smp 64" '64 CPUs online'
    good cpus-65 test=boot "$elf -smp 65" 'warning: 65 CPUs, of which 64 are used' '64 CPUs online'
    good memory-6g test=memory "$elf -m 6G" '6143 MiB of memory' '[0-4] pages lost, 0 mappings failed, the impossible refused'
    good memory-64m test=memory "$elf -m 64 -smp 2" '63 MiB of memory' '[0-4] pages lost, 0 mappings failed, the impossible refused'
    good small-pages test=memory "$elf -m 2G -cpu max,-pdpe1gb" '[0-4] pages lost, 0 mappings failed'
    good plain-cpu test=boot "$elf -cpu qemu64" '1 CPU online'
    good pm-timer test=timer "$elf -machine hpet=off" 'Hz by PM timer' '20 timer shots, 0 early'
    good timer test=timer "$elf" 'Hz by HPET' 'local APIC timer 1000000000 Hz' '20 timer shots, 0 early'
    good interrupts test=ipi "$elf -smp 4" '1000 interprocessor interrupts to each of 4 CPUs, 0 lost'
    good fixups test=fixup "$elf" 'fixups work'
}

panics() {
    bad panic test=panic "" '^panic on CPU 0: a deliberate panic, test=panic' ' test_panic\+0x' ' selftest_run\+0x' ' boot_with_memory\+0x'
    bad panic-other test=panic-other "-smp 4" '^panic on CPU 3: a deliberate panic' ' panic_here\+0x' ' trap_common\+0x' ' cpu_main\+0x'
    bad stack-overflow test=stack-overflow "" '^panic on CPU 0: stack overflow: #DF' ' overflow[.a-z0-9]*\+0x' 'times the same' ' test_overflow\+0x'
    bad stack-smash test=stack-smash "" '^panic on CPU 0: stack smashed' ' test_smash\+0x'
    bad null test=null "" '#PF page fault, error code 0x2, address 0 \(null pointer\)' '^RIP .* test_null\+0x'
    bad write-text test=write-text "" '#PF page fault, error code 0x3' '^RIP .* test_write_text'
    bad execute-data test=execute-data "" '#PF page fault, error code 0x11' ' selftest_run\+0x'
    bad wx-found test=wx "" 'W\^X: 0x[0-9a-f]+ maps the image writable' ' check_leaf\+0x'
}

# Instructions are time: two runs are the same to the last digit.
deterministic() {
    local name=deterministic
    wanted $name || return
    for i in 1 2; do
        qemu "$tmp/$name.$i" -kernel "$build/metronome.elf" -icount shift=0,sleep=off -append "exit=0xf4 test=timer"
    done
    check $name $? "$tmp/$name.2" 1 'TSC 1000000000 Hz' '20 timer shots, 0 early'
    cmp "$tmp/$name.1" "$tmp/$name.2" || { echo "not ok $name-same: two runs differ"; failed=1; }
}

msix() {
    local name=msix
    wanted $name || return
    python3 tests/system/ivshmem-echo.py "$tmp/socket" &
    server=$!
    while [ ! -S "$tmp/socket" ]; do sleep 0.05; done
    qemu "$tmp/$name" -kernel "$build/metronome.elf" -smp 2 -append "exit=0xf4 test=msix" \
        -chardev "socket,path=$tmp/socket,id=s" -device ivshmem-doorbell,vectors=1,chardev=s
    check $name $? "$tmp/$name" 1 'MSI-X interrupts: 1'
    wait $server
    server=
}

# A CPU that cannot do it gets one clear line.
refusal() {
    local name=no-long-mode
    wanted $name || return
    seconds=2 qemu "$tmp/$name" -kernel "$build/metronome.elf" -cpu pentium3
    check $name $? "$tmp/$name" 124 '^error: Metronome needs a CPU with long mode and NX$' '!booted'
}

# bochs_case MODEL CPUS OPTIONS REGEX...
bochs_case() {
    local name=bochs-$1 model=$1 cpus=$2 options=$3
    wanted "$name" || return
    shift 3
    local d=$tmp/$name
    mkdir "$d"
    arch/x86/boot/make-iso "$d/iso" "$build/metronome.elf" -a "$options"
    printf 'c\nq\n' >"$d/rc"
    cat >"$d/bochsrc" <<END
display_library: rfb, options="timeout=0"
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/seabios/vgabios-stdvga.bin
megs: 256
cpu: model=$model, count=$cpus, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none
boot: cdrom
ata0: enabled=1
ata0-master: type=cdrom, path=$d/iso, status=inserted
com1: enabled=1, mode=file, dev=$d/com1
panic: action=fatal
log: $d/log
plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, iodebug=1
END
    (cd "$d" && timeout 60 bochs -q -f bochsrc -rc rc </dev/null >/dev/null 2>&1)
    local status=$?
    tr -d '\r' <"$d/com1" >"$d/out"
    grep -q 'Shutdown port: shutdown requested' "$d/log" || status="$status without shutdown"
    check "$name" "$status" "$d/out" 1 'booted by multiboot2' 'emulated by Bochs' 'W\^X checked' "$@"
}

loaders
module_lines
iso
machines
panics
deterministic
msix
refusal
bochs_case ryzen 1 test=fixup '1 CPU online' 'TSC 50000000 Hz' 'fixups work'
bochs_case corei7_skylake_x 2 test=timer '2 CPUs online' 'TSC deadline' '20 timer shots, 0 early'
exit $failed
