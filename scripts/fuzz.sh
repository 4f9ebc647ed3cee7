#!/usr/bin/env bash
# Fuzzes each target in turn with one worker and prints a summary. Needs cargo-fuzz (`cargo install cargo-fuzz`) and
# a nightly toolchain; without one, the stable compiler is told to act as one.
#
#   scripts/fuzz.sh [seconds for each target, 600] [target...]
#   scripts/fuzz.sh minimise [target...]
#
# New inputs go to FUZZ_WORK (by default below the target folder); `fuzz/corpus` is only read. Exit code 1 if a target
# failed. `minimise` replaces each target's folder in `fuzz/corpus`, but for its seeds, by the smallest of the inputs
# that add to what the others reach, up to 14 KB and 80 files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds="${1:-600}"
shift || true
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

if [ "$seconds" = minimise ]; then
    for target in "${targets[@]}"; do
        corpus="fuzz/corpus/$target" merged="$work/$target.merged"
        rm -rf "$merged"
        mkdir -p "$merged" "$corpus"
        fuzz run "$target" "$merged" "$corpus" "$work/$target" -- -merge=1 -max_len=4096 -rss_limit_mb=2048 \
            >"$work/$target.merge.log" 2>&1
        find "$corpus" -type f ! -name 'seed-*' -delete
        find "$merged" -type f -printf '%s %p\n' | sort -n | head -n 80 |
            while read -r size path && used=$((${used:-0} + size)) && [ "$used" -le 14000 ]; do
                cp "$path" "$corpus/"
            done
        printf '%-20s %6d inputs %8d bytes\n' "$target" "$(find "$corpus" -type f | wc -l)" "$(du -sb "$corpus" | cut -f1)"
    done
    exit
fi

failed=0
printf '%-20s %10s %12s %8s %8s %8s  %s\n' target seconds runs features inputs 'peak MB' result
for target in "${targets[@]}"; do
    mkdir -p "$work/$target" "fuzz/artifacts/$target"
    log="$work/$target.log"
    fuzz build "$target" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
    result=ok
    seeds=()
    [ ! -d "fuzz/corpus/$target" ] || seeds+=("fuzz/corpus/$target")
    # The golden archives are seeds for the targets that read archives.
    case "$target" in archive | stream) seeds+=(tests/golden/ok tests/golden/reject) ;; esac
    # 300 s by the clock: a shared machine may stand still for a minute, which is no hang of ours.
    fuzz run "$target" "$work/$target" ${seeds[@]+"${seeds[@]}"} -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=300 -rss_limit_mb=1024 -print_final_stats=1 \
        >"$log" 2>&1 || { result="FAILED, see $log"; failed=1; }
    last() { { grep -oE "$1" "$log" || echo '? ?'; } | tail -n 1 | grep -oE '[0-9?]+$'; }
    printf '%-20s %10s %12s %8s %8s %8s  %s\n' "$target" "$seconds" \
        "$(last 'number_of_executed_units: [0-9]+')" "$(last 'ft: [0-9]+')" "$(last 'corp: [0-9]+')" \
        "$(last 'peak_rss_mb: *[0-9]+')" "$result"
done
exit "$failed"
