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

cleanup() {
    local m
    while IFS= read -r m; do
        "$OMNIFS" umount "$m" >/dev/null 2>&1 || umount -l "$m" 2>/dev/null
    done < <(cat "$SCRATCH/.mounts" 2>/dev/null)
    rm -rf "$SCRATCH"
}
trap cleanup EXIT

# it NAME COMMAND …: one test; what the command says is shown when it fails.
it() {
    # bash's scoping is dynamic: plain names here would hide the variables of the command.
    local tap_name=$1 tap_said
    shift
    TAP_COUNT=$((TAP_COUNT + 1))
    if tap_said=$("$@" 2>&1); then
        echo "ok $TAP_COUNT - $tap_name"
    else
        echo "not ok $TAP_COUNT - $tap_name"
        printf '%s\n' "command: $*" "$tap_said" | sed 's/^/# /'
        TAP_FAILED=$((TAP_FAILED + 1))
    fi
}

# gives CODE TEXT COMMAND …: the command ends with CODE and its output holds TEXT (a fixed string).
gives() {
    local tap_code=$1 tap_text=$2 tap_got tap_rc
    shift 2
    tap_got=$("$@" 2>&1)
    tap_rc=$?
    if [ $tap_rc -ne "$tap_code" ]; then
        echo "exit code $tap_rc, expected $tap_code: $tap_got"
        return 1
    fi
    case $tap_got in
    *"$tap_text"*) return 0 ;;
    esac
    echo "expected «$tap_text» in: $tap_got"
    return 1
}

# soon COMMAND …: tries until the command succeeds, for as long as a busy machine may need.
soon() {
    local soon_end=$((SECONDS + 60))
    until "$@"; do
        [ $SECONDS -lt $soon_end ] || return 1
        sleep 0.1
    done
}

# mount_at DIR [OPTION …]: mounts with a store beside DIR; unmounted at the end.
mount_at() {
    local dir=$1
    shift
    mkdir -p "$dir" "$dir.store"
    echo "$dir" >>"$SCRATCH/.mounts" # a file, as tests run in subshells
    "$OMNIFS" mount "$dir.store" "$dir" "$@"
}

done_testing() {
    echo "1..$TAP_COUNT"
    [ "$TAP_FAILED" -eq 0 ]
    exit
}
