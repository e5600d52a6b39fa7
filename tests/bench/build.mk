# Benchmarks: printed, and left in build/bench. The peers' images are made when one needs them (tests/bench/make-peer).

.PHONY: bench bench-jitter bench-micro bench-scale bench-self bench-wall
bench: bench-micro bench-scale bench-jitter

bench-jitter: all guests images
	tests/bench/jitter.py

# Each operation of tests/guest/bench on Metronome alone, beside its goal.
bench-self: all guests images
	tests/bench/micro.py self

# The same beside KVM and Xen, in instructions; and beside KVM in time, with a device model and a second vCPU.
bench-micro: all guests images
	tests/bench/micro.py compare
bench-wall: all guests images
	tests/bench/micro.py wall

# What operations cost as vCPUs and guests grow in number, and the hypervisor's memory for them.
bench-scale: all guests
	tests/bench/scale.py
