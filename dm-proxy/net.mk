# The user-mode network: a process beside each QEMU that has a card on it.

NET_CFLAGS := -std=gnu99 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror $(shell pkg-config --cflags slirp 2>/dev/null)
NET_OBJ := $(patsubst %.c,$(B)/net-obj/%.o,$(wildcard dm-proxy/net/*.c))

all: $(B)/metronome-net

$(B)/net-obj/%.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(NET_CFLAGS) -MMD -MP -c $< -o $@

$(B)/metronome-net: $(NET_OBJ)
	$(HOSTCC) $^ -lslirp -o $@

LIBS_test_net := dm-proxy/net/options.c -iquote .
$(B)/unit/test_net: dm-proxy/net/options.c | $(B)/metronome-net
