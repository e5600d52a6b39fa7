#!/bin/sh
# Frama-C, the inductive steps and the exhaustive comparisons: tests/proof/.
# limit: 1200
# run: test
cd "$(dirname "$0")/../.." || exit 1
unset MAKEFLAGS MFLAGS
sample='STATES=1000000 SOME_VPIT=1'
[ "$METRONOME_TESTS" = long ] && sample='STATES=100000000'
# shellcheck disable=SC2086
exec make --no-print-directory -s -k prove $sample
