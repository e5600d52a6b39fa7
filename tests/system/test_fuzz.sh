#!/bin/sh
# Every fuzz target for a few seconds: tests/fuzz/.
# limit: 400
# run: test
cd "$(dirname "$0")/../.." || exit 1
unset MAKEFLAGS MFLAGS
seconds=3
[ "$METRONOME_TESTS" = long ] && seconds=60
exec make --no-print-directory -s fuzz FUZZ_SECONDS=$seconds
