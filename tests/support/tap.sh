# shellcheck shell=bash
# Helpers of the test scripts: TAP lines, a mount of their own, cleaning up whatever happens.
#
#     . tests/support/tap.sh
#     it "finds the picture beside the prompt" test -s "$dir/image.png"
#     done_testing

: "${OMNIFS:?names the omnifs program}"
TAP_COUNT=0
TAP_FAILED=0
SCRATCH=$(mktemp -d)
MOUNTED=()

cleanup() {
    local m
    for m in "${MOUNTED[@]}"; do
        "$OMNIFS" umount "$m" >/dev/null 2>&1 || umount -l "$m" 2>/dev/null
    done
    rm -rf "$SCRATCH"
}
trap cleanup EXIT

# it NAME COMMAND …: one test; what the command says is shown when it fails.
it() {
    local name=$1 out
    shift
    TAP_COUNT=$((TAP_COUNT + 1))
    if out=$("$@" 2>&1); then
        echo "ok $TAP_COUNT - $name"
    else
        echo "not ok $TAP_COUNT - $name"
        printf '%s\n' "command: $*" "$out" | sed 's/^/# /'
        TAP_FAILED=$((TAP_FAILED + 1))
    fi
}

# gives CODE TEXT COMMAND …: the command ends with CODE and its output holds TEXT (a fixed string).
gives() {
    local code=$1 text=$2 out rc
    shift 2
    out=$("$@" 2>&1)
    rc=$?
    if [ $rc -ne "$code" ]; then
        echo "exit code $rc, expected $code: $out"
        return 1
    fi
    case $out in
    *"$text"*) return 0 ;;
    esac
    echo "expected «$text» in: $out"
    return 1
}

# mount_at DIR [OPTION …]: mounts with a store beside DIR; unmounted at the end.
mount_at() {
    local dir=$1
    shift
    mkdir -p "$dir" "$dir.store"
    "$OMNIFS" mount "$dir.store" "$dir" "$@" || return 1
    MOUNTED+=("$dir")
}

done_testing() {
    echo "1..$TAP_COUNT"
    [ "$TAP_FAILED" -eq 0 ]
    exit
}
