#!/usr/bin/env bash
# Prints what layers cost: for each checkpoint given, the bytes up to the end of each layer, stored bits an element and
# relative L2 error over the tensors that may be coarse, and the whole file against the exact archive.
#
#   scripts/layers.sh 4,8,exact model.safetensors ...
#
# ALCM names the program (default: the release build). Needs jq. Checks that the last layer, where it is exact, is the
# source bit for bit.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
alcm="${ALCM:-${CARGO_TARGET_DIR:-$root/target}/release/alcm}"
[ $# -gt 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
[ -x "$alcm" ] || { echo "$alcm is missing: run 'cargo build --release'" >&2; exit 2; }

layers=$1
shift
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

echo "| checkpoint | layer | bytes to its end | bits an element | relative L2 | over the exact archive |"
echo "|---|---|---|---|---|---|"
for source in "$@"; do
    name=$(basename "$source" .safetensors)
    "$alcm" compress "$source" -o "$work/exact.alcm" --quiet --force
    "$alcm" compress "$source" -o "$work/layered.alcm" --quiet --force --layers "$layers"
    "$alcm" verify "$work/layered.alcm" --quiet
    "$alcm" decompress "$work/layered.alcm" -o "$work/back" --quiet --force
    cmp "$work/back" "$source"
    exact=$(wc -c <"$work/exact.alcm")
    "$alcm" inspect "$work/layered.alcm" --json |
        jq -r --arg name "$name" --argjson exact "$exact" '
            def decimals($n): pow(10; $n) as $scale | . * $scale | round / $scale;
            .archives[0].layers | length as $last | to_entries[] |
            "| \($name) | \(.value.goal_bits // "exact") | \(.value.archive_bytes) | \(
                .value.bits_per_element | decimals(3)) | \(.value.rel_l2 * 100 | decimals(3)) % | \(
                if .key + 1 == $last then "\((.value.archive_bytes / $exact - 1) * 100 | decimals(2)) %" else "" end) |"'
done
