#!/bin/sh
# Stands for an interpreter: the virtual nodes are names of one machine, which binds nothing, so each has a core of its own.
[ "$SLURMD_NODENAME" = n1 ] && core=0 || core=$(($(nproc --all) - 1))
exec taskset -c "$core" "$PINNED_PYTHON" "$@"
