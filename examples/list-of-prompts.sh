#!/bin/bash
# Every line of a list becomes a job of a mount; waits for all and says where the pictures are.
#
#     examples/list-of-prompts.sh MOUNTPOINT examples/prompts.txt [KEY=VALUE ...]
#
# Further words become lines of every prompt.ini: size=256x256 seed=1
set -eu
mount=$1 list=$2
shift 2

jobs=()
while IFS= read -r prompt; do
    case $prompt in '' | '#'*) continue ;; esac
    name=$(printf '%s' "$prompt" | tr -cs 'A-Za-z0-9' '-' | cut -c1-40)
    # Prepared under a hidden name and renamed: the job starts with everything in place.
    mkdir "$mount/image/.$name"
    {
        printf 'prompt = %s\n' "$prompt"
        printf '%s\n' "$@"
    } >"$mount/image/.$name/prompt.ini"
    mv "$mount/image/.$name" "$mount/image/$name"
    jobs+=("$mount/image/$name")
done <"$list"

# `cat JOB/wait` blocks until the job has ended and prints how.
failed=0
for job in "${jobs[@]}"; do
    outcome=$(cat "$job/wait")
    echo "$job: $outcome"
    [ "$outcome" = done ] || failed=1
done
exit $failed
