# The daemon: rings, memory and processes of the dom0 side. Its request, paths and host parts serve the command line too.

DAEMON_CFLAGS := -std=gnu99 -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -fstack-protector-strong -Wno-format-truncation \
	-iquote include -iquote dm-proxy -iquote . \
	-DMETRONOME_VERSION='"$(shell git describe --always --dirty 2>/dev/null || echo unknown)"'
LAUNCH_SRC := $(addprefix dm-proxy/qemu/,place.c arguments.c launch.c)
DAEMON_SRC := $(wildcard dm-proxy/daemon/*.c) $(LAUNCH_SRC) firmware/cmos.c
DAEMON_OBJ := $(DAEMON_SRC:%.c=$(B)/daemon-obj/%.o)

all: $(B)/metronome-daemon

$(B)/daemon-obj/%.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(DAEMON_CFLAGS) -MMD -MP -c $< -o $@

$(B)/metronome-daemon: $(DAEMON_OBJ)
	$(HOSTCC) $^ -lz -o $@
