# The dom0 side: each part has its own .mk.
include $(filter-out dm-proxy/build.mk,$(wildcard dm-proxy/*.mk))
