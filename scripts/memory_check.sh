#!/usr/bin/env bash
# Peak anonymous memory of compress, verify and decompress on one large checkpoint; fails above 500 MB.
#
#   scripts/memory_check.sh                      # makes the 6.3 GB file of make_big_checkpoint.py first
#   scripts/memory_check.sh MODEL.safetensors
#   SCALE=0.01 THREADS=8 LEVEL=high LIMIT_MB=500 FOLDER=/data scripts/memory_check.sh
#
# Reads RssAnon + RssShmem of the process up to 50 times a second, so that anonymous memory counts whether it is
# shared or not; pages of mapped files do not, since the kernel drops them when others need the memory. Needs some three times the file on disk under FOLDER, and Linux.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
alcm="${ALCM:-${CARGO_TARGET_DIR:-$root/target}/release/alcm}"
limit_mb="${LIMIT_MB:-500}" threads="${THREADS:-$(nproc)}" level="${LEVEL:-default}"
[ -x "$alcm" ] || { echo "$alcm is missing: run 'cargo build --release'" >&2; exit 2; }

work="$(mktemp -d -p "${FOLDER:-${TMPDIR:-/tmp}}")"
trap 'rm -rf "$work"' EXIT
if [ $# -gt 0 ]; then
    input="$(realpath "$1")"
else
    input="$work/big.safetensors"
    "${PYTHON:-python3}" "$root/scripts/make_big_checkpoint.py" "$input" --scale "${SCALE:-1}"
fi

failed=0
measured() { # measured NAME COMMAND...: runs it, prints its peak and whether it keeps to the limit
    local name="$1" peak_kb=0 samples=0 now_kb start end status verdict
    shift
    start="$(date +%s.%N)"
    "$@" >/dev/null &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        now_kb=0
        while read -r key value _; do
            case "$key" in RssAnon: | RssShmem:) now_kb=$((now_kb + value)) ;; esac
        done 2>/dev/null <"/proc/$pid/status" || true
        if [ "$now_kb" -gt 0 ]; then
            samples=$((samples + 1))
            [ "$now_kb" -le "$peak_kb" ] || peak_kb="$now_kb"
        fi
        sleep 0.02
    done
    status=0
    wait "$pid" || status=$?
    end="$(date +%s.%N)"
    verdict=pass
    # 1 MB is 1000 kB here; the kernel counts in units of 1024 bytes.
    if [ "$status" -ne 0 ]; then
        verdict="FAIL (exit code $status)"
    elif [ "$samples" -eq 0 ]; then
        verdict="FAIL (too short to measure)"
    elif [ "$((peak_kb * 1024))" -gt "$((limit_mb * 1000000))" ]; then
        verdict=FAIL
    fi
    [ "$verdict" = pass ] || failed=1
    printf '| %s | %.1f | %.1f | %d | %s |\n' "$name" "$(echo "$end - $start" | bc -l)" \
        "$(echo "$peak_kb * 1024 / 1000000" | bc -l)" "$samples" "$verdict"
}

echo "input: $(stat -c %s "$input") bytes; $threads threads, level $level; limit $limit_mb MB of RssAnon + RssShmem"
printf '| step | seconds | peak, MB | samples | |\n|---|---:|---:|---:|---|\n'
measured compress "$alcm" compress "$input" -o "$work/archive" --level "$level" --threads "$threads" --quiet
measured verify "$alcm" verify "$work/archive" --threads "$threads" --quiet
measured decompress "$alcm" decompress "$work/archive" -o "$work/restored" --threads "$threads" --quiet
restored="$(find "$work/restored" -type f -name "$(basename "$input")" -print -quit 2>/dev/null || true)"
if ! cmp "$input" "${restored:-/dev/null}"; then
    echo "the restored file differs" >&2
    failed=1
fi
exit "$failed"
