# Benchmarks: printed, and left in build/bench. The peer's image is made when one needs it (tests/bench/make-peer).

.PHONY: bench bench-jitter
bench: bench-jitter

bench-jitter: all guests images
	tests/bench/jitter.py
