#!/bin/sh
# Lines and branches of the seven device models that their unit tests run: at least 98% and 95% of each model.
# limit: 240
cd "$(dirname "$0")/../.." && exec make --no-print-directory coverage
