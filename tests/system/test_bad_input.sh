#!/bin/bash
# Bad input: one clear line on stderr, status 2, nothing left running, no file left behind.
# Each row: what the line must say | the arguments. The files are made below.
# limit: 120
# run: check
set -u
cd "$(dirname "$0")/../.." || exit 1
program=$(realpath "${B:-build}")/metronome
[ -x "$program" ] || { echo "$program is not there" >&2; exit 1; }
work=$(mktemp -d)
trap 'kill $listener 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1

truncate -s 1M good.img
truncate -s 1000 odd.img
: >empty.img
printf 'QFI\373\0\0\0\3' >stub.qcow2
truncate -s 65536 stub.qcow2
qemu-img create -q -f qcow2 whole.qcow2 64M
head -c 100000 whole.qcow2 >short.qcow2
cp whole.qcow2 disguised.img
truncate -s 1000000 odd.rom
truncate -s 2M large.rom
# A disk of 1 MiB whose only partition ends at 64 MiB, and an ISO volume of 1000 blocks in 100 KiB.
printf '\0\0\0\0\203\0\0\0\0\10\0\0\0\370\1\0' | dd of=cut.img bs=1 seek=446 status=none
printf '\125\252' | dd of=cut.img bs=1 seek=510 status=none
truncate -s 1M cut.img
truncate -s 102400 cut.iso
printf '\1CD001' | dd of=cut.iso bs=1 seek=32768 conv=notrunc status=none
printf '\350\3\0\0' | dd of=cut.iso bs=1 seek=32848 conv=notrunc status=none
mkdir folder
touch unreadable.cfg
chmod 000 unreadable.cfg
echo 'name = "a' >broken.cfg
printf 'name = "a"\nmemroy = 512\n' >typo.cfg
printf 'name = "a"\nextra = [ "x=1", "y=2" ]\n' >list.cfg
printf 'disk = "good.img"\n' >nolist.cfg
printf 'ticks = [ "pit=burst", "pit" ]\n' >ticks.cfg
printf 'ticks = "pit=burst"\n' >noticks.cfg
printf 'timer_mode = 4\n' >mode.cfg
printf 'vcpus = 99\n' >vcpus.cfg
printf 'vcpus = "4,sockets=8"\n' >sockets.cfg
printf "disk = [ 'good.img,raw,hda,w', 'good.img,raw,xvda,w' ]\n" >twice.cfg
printf "vif = [ 'mac=00:11:22:33:44:55,rate=1' ]\n" >vif.cfg
# A port and a socket that are taken.
python3 - "$work/taken" "$work/ports" <<'PY' &
import socket, sys, time
tcp = socket.socket()
for display in range(40, 99):
    try:
        tcp.bind(("127.0.0.1", 5900 + display))
        break
    except OSError:
        pass
tcp.listen()
unix = socket.socket(socket.AF_UNIX)
unix.bind(sys.argv[1])
unix.listen()
open(sys.argv[2] + ".new", "w").write("%d %d" % (display, 5900 + display))
import os
os.rename(sys.argv[2] + ".new", sys.argv[2])
time.sleep(600)
PY
listener=$!
while [ ! -e ports ]; do sleep 0.05; done
read -r display port <ports

table() {
    cat <<EOT
no command|
unknown command|fly
unrecognized option|run --fly
requires an argument|run --disk
only one file|run typo.cfg list.cfg
no such file|run --disk missing.img
no such file|run --cdrom missing.iso
no such file|run --firmware missing.rom
no such file|run --module missing
no such file|run missing.cfg
is truncated: 1000 bytes|run --disk odd.img
is empty|run --disk empty.img
is empty|run --cdrom empty.img
is a directory|run --disk folder
is truncated: 100000 bytes|run --disk short.qcow2,qcow2,hda
truncated or no qcow2|run --disk stub.qcow2,qcow2,hda
no qcow2 image|run --disk good.img,qcow2,hda
is a qcow2 image|run --disk disguised.img
its partition 1 ends|run --disk cut.img
its volume has|run --cdrom cut.iso
unknown value for format|run --disk good.img,nonsense,hda
no place for a disk|run --disk good.img,raw,hdz
no place for a disk|run --disk good.img,raw,sdg
two disks at the same place|run --disk good.img,raw,hda --disk good.img,raw,hda
is empty|run --firmware empty.img
no firmware image|run --firmware odd.rom
no firmware image|run --firmware large.rom
is empty|run --module empty.img
is not a file|run --module folder
no device model|run --module good.img --disk good.img
go with --module|run --append quiet
not a file|run folder
broken.cfg:1: .*parsing error|run broken.cfg
unknown key 'memroy'|run typo.cfg
unknown key 'extra'|run list.cfg
disk: must be a list|run nolist.cfg
vcpus: 99 is out of range|run vcpus.cfg
two disks at the same place|run twice.cfg
unknown word 'rate=1'|run vif.cfg
is no size|run --memory lots
is no size|run --memory -5
out of range|run --memory 99999999999G
too little|run --memory 1
too much|run --memory 900G
is no number|run --vcpus two
out of range|run --vcpus 0
out of range|run --vcpus 65
'threads=2' behind the number is not sockets=|run --vcpus 4,threads=2
'' behind the number is not sockets=|run --vcpus 4,
'two' is no number|run --vcpus 4,sockets=two
sockets=0 is out of range: 4 virtual CPUs are in 1 to 4|run --vcpus 4,sockets=0
sockets=5 is out of range: 4 virtual CPUs are in 1 to 4|run --vcpus 4,sockets=5
sockets=3: 4 virtual CPUs cannot be shared out evenly|run --vcpus 4,sockets=3
sockets=2 would have 3 virtual CPUs each: .* a power of two|run --vcpus 6,sockets=2
sockets.cfg: vcpus: sockets=8 is out of range|run sockets.cfg
one package with --deterministic|run --deterministic --module good.img --vcpus 4,sockets=4
no VNC display|run --vnc here
port $port is in use|run --vnc 127.0.0.1:$display
port $port is in use|run --qmp 127.0.0.1:$port
is in use already|run --qmp taken
exists and is no socket|run --qmp good.img
is in use already|run --vnc unix:taken
'often': not SOURCE=POLICY|run --ticks pit=often
'cmos=drop': not SOURCE=POLICY|run --ticks pit=drop,cmos=drop
'': not SOURCE=POLICY|run --ticks pit=drop,
ticks.cfg: ticks: 'pit': not SOURCE|run ticks.cfg
ticks: must be a list|run noticks.cfg
timer_mode: '4' is no timer mode|run mode.cfg
the option is --ticks|run --timer_mode 1
is no boot order|run --boot xyz
is no display|run --vga matrox
is no number of seconds|run --timeout soon
--expect: '[(]'|run --expect (
no MAC address|run --nic e1000,mac=1:2:3
a group's MAC|run --nic e1000,mac=01:00:5e:00:00:01
no model|run --nic Weird!
one guest at most|latency one two
is no number of seconds|latency --watch soon
is no number of seconds|latency --watch 0
no such file|latency -i missing.json
is no file of|latency -i good.img
in place of a guest|latency -i good.img guest
in place of a guest|latency -i good.img --watch 1
unrecognized option|latency --fly
interval: 'soon' is no number|top --interval soon
interval: '0' is no number from 0.1|top --interval 0
count: '0' is no number from 1|top --count 0
top takes no arguments|top guest
one guest at most|why-late one two
'clock' is not pit, rtc|why-late --source clock
is no file of|why-late -i good.img
in place of a guest|why-late -i good.img --clear
forgets all|why-late --clear --source pit
'nonsense' is no class of events|trace -e sched,nonsense
'-1' is no class of events|trace -e -1
chooses no event|trace -e 0x80000
is no number of seconds|trace --seconds never
is no number of seconds|trace --seconds 0
no such file|trace --perfetto -i missing.trace
is no trace|trace --perfetto -i good.img
read only to make a timeline|trace -i good.img
no guests|trace --perfetto -i good.img guest
goes with --input|trace --perfetto --cpu-hz 1e9
is no number of ticks|trace --perfetto -i good.img --cpu-hz fast
EOT
    [ "$(id -u)" = 0 ] || echo 'Permission denied|run unreadable.cfg'
}

# One run with what surrounds it: the expected line, then arguments; `environment` has NAME=value words.
check() {
    expected=$1
    shift
    timeout 60 env METRONOME_RUNTIME_DIR="$work/runtime" "${environment[@]}" "$program" "$@" >out 2>err </dev/null
    status=$?
    why=
    [ $status = 2 ] || why="status $status"
    [ "$(wc -l <err)" = 1 ] || why="not one line"
    [ ! -s out ] || why="output on stdout"
    grep -qiE -- "$expected" err || why="does not say '$expected'"
    [ ! -e "$work/runtime" ] || why="leaves $(ls -A "$work/runtime")"
    if [ "$why" ]; then
        echo "not ok metronome $*: $why"
        sed 's/^/    /' err
        failed=1
    else
        echo "ok metronome $*: $(sed "s|^metronome: ||; s|$work|.|g" err)"
    fi
}

failed=0
environment=(A=a)
before=$(ls)
while IFS='|' read -r expected arguments; do
    # shellcheck disable=SC2086
    check "$expected" $arguments
done < <(table)

# Programs that are not there.
environment=(METRONOME_OUTER_QEMU=/missing)
check 'no QEMU to run the hypervisor' run --disk good.img
environment=(METRONOME_QEMU=/missing)
check "no QEMU for the guest's devices" run --disk good.img
environment=(METRONOME_HYPERVISOR=/missing)
check 'the hypervisor is not there' run --disk good.img

rm -f out err
after=$(ls)
if [ "$before" = "$after" ]; then echo "ok no file is left"; else echo "not ok no file is left: $after"; failed=1; fi
left=$(grep -lsaz "^METRONOME_RUNTIME_DIR=$work/runtime$" /proc/[0-9]*/environ)
if [ "$left" ]; then echo "not ok nothing runs: $left"; failed=1; else echo "ok nothing runs"; fi
exit $failed
