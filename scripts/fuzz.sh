#!/usr/bin/env bash
# Fuzzes each target in turn with one worker, prints a line for each, and stops at the first that fails. Needs cargo-fuzz
# (`cargo install cargo-fuzz`) and a nightly toolchain; without one, the stable compiler is told to act as one.
#
#   scripts/fuzz.sh [seconds for each target, 600] [target...]
#   scripts/fuzz.sh minimise [target...]
#
# New inputs go to FUZZ_WORK (by default below the target folder); `fuzz/corpus` is only read. Exit code 1 if a target
# failed: the input is named, with how it failed and how to run it again. An input may take FUZZ_TIMEOUT seconds by the
# clock, 120: a shared machine may stand still for a minute, which is no hang of ours.
#
# `minimise` replaces each target's folder in `fuzz/corpus`, but for its seeds, by up to 60 inputs, 13 KB in all, of
# those that add to what the others reach.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-600}" in
minimise) seconds="$1" ;;
'' | *[!0-9]*) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
*) seconds="${1:-600}" ;;
esac
shift || true
timeout_s="${FUZZ_TIMEOUT:-120}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/fuzz/target}"
work="${FUZZ_WORK:-$CARGO_TARGET_DIR/fuzz-work}"

toolchain=(+nightly)
if ! rustc +nightly --version >/dev/null 2>&1; then
    toolchain=()
    export RUSTC_BOOTSTRAP=1
fi
fuzz() { cargo ${toolchain[@]+"${toolchain[@]}"} fuzz "$@"; }

if [ "$#" -gt 0 ]; then
    targets=("$@")
else
    mapfile -t targets < <(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
fi

build() { # build TARGET LOG
    fuzz build "$1" >"$2" 2>&1 || { tail -n 20 "$2" >&2 && exit 1; }
}

minimise() { # minimise TARGET
    local corpus="fuzz/corpus/$1" merged="$work/$1.merged" log="$work/$1.merge.log"
    rm -rf "$merged"
    mkdir -p "$merged" "$corpus" "$work/$1"
    build "$1" "$log"
    # A merge outlives crashing and slow inputs: it leaves them out.
    fuzz run "$1" "$merged" "$corpus" "$work/$1" -- -merge=1 -max_len=4096 -timeout="$timeout_s" -rss_limit_mb=2048 \
        >"$log" 2>&1 || { tail -n 20 "$log" >&2 && exit 1; }
    find "$corpus" -type f ! -name 'seed-*' -delete
    # Some of every size, evenly from the sorted list, while there is room. awk reads to the end, so that no pipe breaks.
    find "$merged" -type f -size -4097c -printf '%s %p\n' | sort -n -k1,1 -k2 | awk '
        { bytes[NR] = $1; path[NR] = $2 }
        END {
            step = NR > 60 ? NR / 60 : 1
            for (i = 1; i <= NR; i += step) {
                k = int(i)
                if (used + bytes[k] <= 13000) { used += bytes[k]; print path[k] }
            }
        }' >"$merged.chosen"
    while read -r path; do
        # A seed, if it was chosen, is there already.
        find "$corpus" -type f -exec cmp -s "$path" {} \; -print -quit | grep -q . || cp "$path" "$corpus/"
    done <"$merged.chosen"
    printf '%-20s %6d inputs %8d bytes\n' "$1" "$(find "$corpus" -type f | wc -l)" \
        "$(find "$corpus" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')"
}

if [ "$seconds" = minimise ]; then
    for target in "${targets[@]}"; do minimise "$target"; done
    exit
fi

# How a target failed, from its log: libFuzzer names the input's file after it.
verdict() {
    local input
    input="$({ grep -oE 'Test unit written to .*' "$1" || true; } | sed 's/.*written to //' | tail -n 1)"
    case "$input" in
    */timeout-*) echo "TIMEOUT: an input took over $timeout_s s by the clock (was the machine busy?): $input" ;;
    */slow-unit-*) echo "SLOW: $input" ;;
    */oom-*) echo "OUT OF MEMORY: $input" ;;
    '') echo "FAILED without an input, see $1" ;;
    *) echo "CRASH: $input" ;;
    esac
}

printf '%-20s %10s %12s %8s %8s %8s  %s\n' target seconds runs features inputs 'peak MB' result
for target in "${targets[@]}"; do
    mkdir -p "$work/$target" "fuzz/artifacts/$target"
    log="$work/$target.log"
    build "$target" "$log"
    result=ok
    seeds=()
    [ ! -d "fuzz/corpus/$target" ] || seeds+=("fuzz/corpus/$target")
    # The golden archives are seeds for the targets that read archives.
    case "$target" in archive | stream) seeds+=(tests/golden/ok tests/golden/reject) ;; esac
    fuzz run "$target" "$work/$target" ${seeds[@]+"${seeds[@]}"} -- -max_total_time="$seconds" -max_len=65536 \
        -timeout="$timeout_s" -report_slow_units="$timeout_s" -rss_limit_mb=1024 -print_final_stats=1 \
        >"$log" 2>&1 || result="$(verdict "$log")"
    last() { { grep -oE "$1" "$log" || echo '? ?'; } | tail -n 1 | grep -oE '[0-9?]+$'; }
    printf '%-20s %10s %12s %8s %8s %8s  %s\n' "$target" "$seconds" \
        "$(last 'number_of_executed_units: [0-9]+')" "$(last 'ft: [0-9]+')" "$(last 'corp: [0-9]+')" \
        "$(last 'peak_rss_mb: *[0-9]+')" "$result"
    if [ "$result" != ok ]; then
        echo "again: cargo ${toolchain[*]-} fuzz run $target ${result##*: }; the log is $log" >&2
        exit 1
    fi
done
