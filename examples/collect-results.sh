#!/bin/bash
# Watches a drop box and copies every finished picture to a folder: inotify works because results
# appear through the mount itself. metadata.json is always the last file, so it is the one to watch.
#
#     examples/collect-results.sh MOUNTPOINT/image TARGET [COUNT]
#
# Ends after COUNT jobs (default: never).
set -eu
box=$1 target=$2 count=${3:-0}
mkdir -p "$target"

exec 3< <(exec inotifywait -q -m -r -e close_write -e moved_to --format '%w%f' "$box")
watcher=$!
trap 'kill "$watcher"' EXIT
collected=0
while IFS= read -r file <&3; do
    case $file in
    */metadata.json) ;;
    *) continue ;;
    esac
    job=$(dirname "$file")
    cp "$file" "$target/$(basename "$job").json"
    for picture in "$job"/image*.*; do
        [ -e "$picture" ] && cp "$picture" "$target/$(basename "$job")-$(basename "$picture")"
    done
    echo "collected $(basename "$job")"
    collected=$((collected + 1))
    [ "$collected" = "$count" ] && break
done
