#!/bin/sh
# Frama-C and the exhaustive comparisons: tests/proof/.
# limit: 1200
# run: test
cd "$(dirname "$0")/../.." || exit 1
unset MAKEFLAGS MFLAGS
exec make --no-print-directory -s -k prove
