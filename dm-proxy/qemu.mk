# The library that plugs into a stock QEMU, under the names of the seven libxen libraries: LD_LIBRARY_PATH=build/dm

DM_CFLAGS := -std=gnu99 -D_GNU_SOURCE -O2 -g -fPIC -fvisibility=default -Wall -Wextra -Werror -iquote include
DM_SRC := $(addprefix dm-proxy/qemu/,attach.c ring.c memory.c request.c evtchn.c devicemodel.c foreignmemory.c xenctrl.c \
	xenstore.c gnttab.c fw_cfg_port.c) firmware/fw_cfg.c firmware/platform.c
DM_OBJ := $(DM_SRC:%.c=$(B)/dm-obj/%.o)
DM_SONAMES := libxenctrl.so.4.17 libxendevicemodel.so.1 libxenevtchn.so.1 libxenforeignmemory.so.1 libxengnttab.so.1 \
	libxenstore.so.4 libxentoolcore.so.1
DM_LINKS := $(DM_SONAMES:%=$(B)/dm/%)

.PHONY: dm
dm: $(DM_LINKS)
all: dm

$(B)/dm-obj/%.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(DM_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libmetronome-dm.so: $(DM_OBJ) dm-proxy/qemu/libmetronome-dm.map
	$(HOSTCC) -shared -Wl,-z,defs -Wl,--version-script=dm-proxy/qemu/libmetronome-dm.map $(DM_OBJ) -lpthread -o $@

$(DM_LINKS): $(B)/libmetronome-dm.so
	@mkdir -p $(@D)
	ln -sfn ../libmetronome-dm.so $@

# Tests. The launcher is linked into whoever starts QEMU: the daemon, and these.
DM_LAUNCH_SRC := $(addprefix dm-proxy/qemu/,place.c arguments.c user_net.c launch.c)
$(B)/metronome-daemon $(B)/metronome: $(DM_LAUNCH_SRC:%.c=$(B)/daemon-obj/%.o)

LIBS_test_fw_cfg := firmware/fw_cfg.c firmware/platform.c firmware/cmos.c -iquote .
LIBS_test_dm_request := dm-proxy/qemu/request.c -iquote .
LIBS_test_dm_library := $(DM_LAUNCH_SRC) firmware/cmos.c firmware/platform.c firmware/fw_cfg.c -iquote .
$(B)/unit/test_fw_cfg: firmware/fw_cfg.c firmware/platform.c firmware/cmos.c
$(B)/unit/test_dm_request: dm-proxy/qemu/request.c
$(B)/unit/test_dm_library: $(DM_LAUNCH_SRC) firmware/cmos.c | dm $(B)/metronome-net
$(B)/unit/test_dm_launch: $(DM_LAUNCH_SRC) | dm $(B)/metronome-net
LIBS_test_dm_launch := $(DM_LAUNCH_SRC) -iquote .
