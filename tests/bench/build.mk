# Benchmarks: printed, and left in build/bench. The peer's image is made when one needs it (tests/bench/make-peer).

.PHONY: bench bench-jitter bench-micro bench-scale bench-self bench-wall
bench: bench-micro bench-scale bench-jitter

bench-jitter: all guests images
	tests/bench/jitter.py

# Each operation of tests/guest/bench on Metronome alone, beside its goal.
bench-self: all guests images
	tests/bench/micro.py self

# The same beside KVM, in instructions; and in time, with a device model and a second vCPU.
bench-micro: all guests images
	tests/bench/micro.py compare
bench-wall: all guests images
	tests/bench/micro.py wall

# What operations cost as vCPUs and guests grow in number, and the hypervisor's memory for them.
bench-scale: all guests
	tests/bench/scale.py
