#!/usr/bin/env bash
# File-to-file speed of `alcm compress` and `decompress` beside `cp -r` of the same tree, page cache warm.
#
#   scripts/file_speed.sh MODEL.safetensors ...
#   ROUNDS=7 THREADS=2 BYTES=1073741824 LEVEL=default FOLDER=/dev/shm scripts/file_speed.sh MODEL.safetensors ...
#
# The tree (>= BYTES, made of the given checkpoints by checkpoint_tree.py), the archives and the outputs lie
# under FOLDER (default: a temporary folder; some 5 times BYTES are needed). Rounds are interleaved; the
# medians count, and each as a ratio to the median of cp. The restored tree is compared once, byte for byte.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
alcm="${ALCM:-${CARGO_TARGET_DIR:-$root/target}/release/alcm}"
rounds="${ROUNDS:-5}" threads="${THREADS:-2}" bytes="${BYTES:-1073741824}" level="${LEVEL:-default}"
[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
[ -x "$alcm" ] || { echo "$alcm is missing: run 'cargo build --release'" >&2; exit 2; }

work="$(mktemp -d -p "${FOLDER:-${TMPDIR:-/tmp}}")"
trap 'rm -rf "$work"' EXIT
python="${PYTHON:-python3}"
"$python" "$root/scripts/checkpoint_tree.py" "$work/tree" "$@" --bytes "$bytes"
file_bytes() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d", sum }'; }
tree_bytes="$(file_bytes "$work/tree")"
find "$work/tree" -type f -exec cat {} + >/dev/null # warms the page cache

timed() { # timed NAME OUTPUT COMMAND...: appends the wall seconds, without and with the write-back, to $work/NAME.*
    local name="$1" output="$2" start end synced
    shift 2
    # A virtual machine gives free memory back to its host, and then waits for the host at the first write of each page,
    # which takes ten times as long as writing it. So each command runs twice, and the second time counts: then it gets
    # the memory that removing the first output has just set free.
    rm -rf "$output"
    "$@" >/dev/null
    sync -f "$work"
    rm -rf "$output"
    start="$(date +%s.%N)"
    "$@" >/dev/null
    end="$(date +%s.%N)"
    # Dirty pages of one command must not be written back during the next.
    sync -f "$work"
    synced="$(date +%s.%N)"
    echo "$end - $start" | bc -l >>"$work/$name.times"
    echo "$synced - $start" | bc -l >>"$work/$name.synced"
}
copy_tree() { cp -r --reflink=never "$work/tree" "$work/copied"; }
compress() { "$alcm" compress "$work/tree" -o "$work/archive" --level "$level" --threads "$threads" --quiet; }
decompress() { "$alcm" decompress "$work/archive" -o "$work/restored" --threads "$threads" --quiet; }

for ((round = 0; round < rounds; round++)); do
    timed cp "$work/copied" copy_tree
    timed compress "$work/archive" compress
    timed decompress "$work/restored" decompress
    if [ "$round" -eq 0 ]; then
        restored="$(find "$work/restored" -name config.json -printf '%h\n' -quit)"
        diff -r "$work/tree" "$restored" || { echo "the restored tree differs" >&2; exit 1; }
    fi
done

median() { sort -g "$1" | sed -n "$(((rounds + 1) / 2))p"; }
cpu="$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo 2>/dev/null || uname -m)"
echo "machine: $cpu, $(nproc) CPUs; commit $(git -C "$root" rev-parse --short HEAD); $(date -u +%F)"
echo "tree: $tree_bytes bytes, saved $(echo "scale=2; 100 * ($tree_bytes - $(file_bytes "$work/archive")) / $tree_bytes" | bc) %," \
    "level $level, $threads threads, $rounds rounds, $(stat -f -c %T "$work")"
# The bound is on the first ratio; neither cp nor alcm waits for the disk, which the second ratio adds.
printf '| step | seconds | GB/s | ÷ cp | bound | seconds to disk | ÷ cp to disk |\n|---|---:|---:|---:|---:|---:|---:|\n'
cp_s="$(median "$work/cp.times")" cp_synced_s="$(median "$work/cp.synced")"
for step in cp:- compress:1.6 decompress:1.3; do
    s="$(median "$work/${step%:*}.times")" synced_s="$(median "$work/${step%:*}.synced")"
    printf '| %s | %.3f | %.2f | %.2f | %s | %.3f | %.2f |\n' "${step%:*}" "$s" \
        "$(echo "$tree_bytes / $s / 1000000000" | bc -l)" "$(echo "$s / $cp_s" | bc -l)" "${step#*:}" \
        "$synced_s" "$(echo "$synced_s / $cp_synced_s" | bc -l)"
done
