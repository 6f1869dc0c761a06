#!/bin/bash
# The commands as a user types them: what they print, where, and how they exit.
. tests/support/tap.sh

# names_options COMMAND PAGE: every long option that --help lists is in the man page.
names_options() {
    local option
    for option in $("$OMNIFS" "$1" --help | grep -oE '^ .{0,7}--[a-z-]+' | grep -oE -- '--[a-z-]+$'); do
        mandoc -Tascii "$2" | sed 's/.\x08//g' | grep -q -e "$option" || { echo "$2 does not mention $option"; return 1; }
    done
}

as_mount_helper() {
    ln -sf "$OMNIFS" "$SCRATCH/mount.omnifs"
    "$SCRATCH/mount.omnifs" "$mnt.store" "$mnt" -o ro || return 1
    grep -q " $mnt fuse.omnifs ro," /proc/mounts && "$OMNIFS" umount "$mnt"
}

it "no word at all prints the commands and is a mistake" gives 2 "Usage: omnifs COMMAND" "$OMNIFS"
it "--help lists every command" gives 0 "doctor" "$OMNIFS" --help
it "--version says version and commit" gives 0 "omnifs $(cat VERSION) (" "$OMNIFS" --version
it "a slip of a command names the near miss" gives 2 "unknown command statsu; did you mean status?" "$OMNIFS" statsu
it "a slip stays a slip with a second word" gives 2 "did you mean status?" "$OMNIFS" statsu /
it "an unknown command says where to look" gives 2 "omnifs --help lists them" "$OMNIFS" frobnicate
it "an unknown option of the program is a mistake" gives 2 "unknown option --verison" "$OMNIFS" --verison
for command in mount umount run wait status models bench doctor; do
    it "$command --help exits 0" gives 0 "Usage: omnifs $command" "$OMNIFS" $command --help
    it "$command refuses an unknown option" gives 2 "wrong" "$OMNIFS" $command --wrong
    section=1
    case $command in mount | umount) section=8 ;; esac
    it "$command has a man page" test -s man/omnifs-$command.$section
    it "the man page of $command names its options" names_options $command man/omnifs-$command.$section
done

# ---- run ----

prompt() { # FILE LINE …
    local file=$1
    shift
    mkdir -p "${file%/*}"
    printf '%s\n' 'size = 64x64' 'steps = 2' 'seed = 1' "$@" >"$file"
}
prompt "$SCRATCH/star.ini" 'prompt = a star'
out=$SCRATCH/out

it "run prints the paths of its results" gives 0 "$out/image.png" "$OMNIFS" run "$SCRATCH/star.ini" -o "$out"
quiet_run() {
    [ -z "$("$OMNIFS" run -q "$SCRATCH/star.ini" -o "$SCRATCH/quiet" 2>&1)" ]
}
it "run -q says nothing" quiet_run
clean_output() {
    ! "$OMNIFS" run "$SCRATCH/star.ini" -o "$out" 2>&1 | grep -q $'[\033\r]'
}
long_prompts() {
    local many
    many=$(printf 'many words %.0s' {1..60})
    prompt "$SCRATCH/long.ini" "prompt = $many" "negative_prompt = $many" 'guidance = 3'
    gives 0 "the prompt is longer than the" "$OMNIFS" run -j "$SCRATCH/long.ini" -o "$SCRATCH/long" &&
        python3 -c 'import json,sys
assert json.load(open(sys.argv[1]))["truncated"] == {"prompt": True, "negative_prompt": True}' "$SCRATCH/long/metadata.json"
}
it "metadata tells of prompts that were cut" long_prompts
it "run writes no escape codes to a pipe" clean_output
same_bytes() {
    "$OMNIFS" run -q "$out/metadata.json" -o "$SCRATCH/again" && cmp "$out/image.png" "$SCRATCH/again/image.png"
}
it "run metadata.json draws the same bytes" same_bytes
other_bytes() {
    "$OMNIFS" run -q "$SCRATCH/star.ini" -s seed=2 -o "$SCRATCH/other" && ! cmp -s "$out/image.png" "$SCRATCH/other/image.png"
}
it "run -s sets a key" other_bytes
json_output() {
    "$OMNIFS" run --json "$SCRATCH/star.ini" -o "$out" 2>/dev/null |
        python3 -c 'import json,sys; m = json.load(sys.stdin); assert m["status"] == "done" and m["outputs"][0]["file"] == "image.png"'
}
it "run --json prints metadata.json alone on stdout" json_output
prompt "$SCRATCH/box/video/job/prompt.ini" 'prompt = a star' 'frames = 2'
it "run takes the modality from the folder" gives 0 "video.mp4" "$OMNIFS" run "$SCRATCH/box/video/job/prompt.ini" -o "$SCRATCH/v"
prompt "$SCRATCH/gif.ini" 'prompt = a star' 'frames = 2' 'return_format = gif'
it "run takes the modality from the format" gives 0 "animation.gif" "$OMNIFS" run "$SCRATCH/gif.ini" -o "$SCRATCH/g"
printf 'video = video.mp4\n' >"$SCRATCH/v/convert.ini"
it "a clip alone is made a GIF" gives 0 "animation.gif" "$OMNIFS" run "$SCRATCH/v/convert.ini" -o "$SCRATCH/g2"
it "run takes the modality from -s" gives 0 "video.mp4" "$OMNIFS" run "$SCRATCH/star.ini" -s frames=2 -o "$SCRATCH/v3"
it "run -m decides the modality" gives 0 "video.mp4" "$OMNIFS" run -m video -s frames=2 "$SCRATCH/star.ini" -o "$SCRATCH/v2"
it "run refuses a modality that does not exist" gives 2 "none of image, video, gif" "$OMNIFS" run -m film "$SCRATCH/star.ini"
prompt "$SCRATCH/slip.ini" 'promt = a star'
it "run names line and near miss of a wrong key" gives 2 "slip.ini:4: the key \"promt\" is unknown; did you mean prompt?" "$OMNIFS" run "$SCRATCH/slip.ini"
it "run refuses what -s cannot mean" gives 2 "expected key=value" "$OMNIFS" run -s seed "$SCRATCH/star.ini"
it "run fails over a limit with 1" gives 1 "is over max_resolution" "$OMNIFS" run -s size=9000x9000 "$SCRATCH/star.ini" -o "$SCRATCH/f"
it "run refuses a key without use" gives 1 "quality has no use with return_format png" "$OMNIFS" run -s quality=5 "$SCRATCH/star.ini" -o "$SCRATCH/f"
prompt "$SCRATCH/blocked.ini" 'prompt = porn'
it "run exits 3 when the prompt is blocked" gives 3 "not allowed at safety_level standard" "$OMNIFS" run "$SCRATCH/blocked.ini" -o "$SCRATCH/f"
shows_picture() { # on a terminal, and without colours where none are wanted
    TERM=xterm-256color script -qec "$OMNIFS run -q --show $SCRATCH/star.ini -o $out" /dev/null </dev/null | grep -q $'\033\\[.*48;[25];'
}
it "run --show draws on a terminal" shows_picture
it "run of a missing file is a mistake" gives 2 "No such file" "$OMNIFS" run "$SCRATCH/none.ini"
it "run --show needs a terminal" gives 2 "needs a terminal" "$OMNIFS" run --show "$SCRATCH/star.ini"
interrupted_run() {
    "$OMNIFS" run "$SCRATCH/star.ini" -s steps=200 -s size=512x512 -s count=8 -o "$SCRATCH/i" >"$SCRATCH/i.log" 2>&1 &
    local pid=$!
    soon grep -q diffuse "$SCRATCH/i.log" || return 1
    kill -INT "$pid"
    wait "$pid"
    [ $? -eq 130 ] && grep -q '"status": "cancelled"' "$SCRATCH/i/metadata.json"
}
set -m # background programs keep SIGINT
it "an interrupted run is cancelled, recorded, and exits 130" interrupted_run
set +m

# ---- a mount ----

mnt=$SCRATCH/mnt
it "status says when nothing is mounted there" gives 1 "is no omnifs mount" "$OMNIFS" status "$SCRATCH"
it "wait says when a folder is no job" gives 1 "is not a job" "$OMNIFS" wait "$SCRATCH"
it "mount returns when the mount answers" mount_at "$mnt"
it "a second mount of the same store is refused" gives 1 "omnifs" "$OMNIFS" mount "$mnt.store" "$SCRATCH/out"
prompt "$mnt/image/star/prompt.ini" 'prompt = a star'
prompt "$mnt/image/slip/prompt.ini" 'promt = a star'
it "wait waits and says how" gives 0 "$mnt/image/star: done" "$OMNIFS" wait "$mnt/image/star"
it "wait of several exits with the worst" gives 1 "$mnt/image/slip: failed" "$OMNIFS" wait "$mnt/image/star" "$mnt/image/slip"
it "status without jobs says so" gives 0 "no jobs wait or run" "$OMNIFS" status "$mnt"
prompt "$mnt/image/a running star/prompt.ini" 'prompt = a star' 'count = 4'
sed -i 's/^steps.*/steps = 200/; s/^size.*/size = 512x512/' "$mnt/image/a running star/prompt.ini"
runs_there() {
    "$OMNIFS" status "$mnt" | grep -q '^image/a running star  running '
}
shows_job() {
    soon runs_there || return 1
    "$OMNIFS" status --json "$mnt" | python3 -c 'import json,sys; j = json.load(sys.stdin); assert j[0]["folder"] == "image/a running star" and j[0]["state"].startswith("running")'
}
it "status shows what runs, in words and JSON" shows_job
cancelled_job() {
    echo >"$mnt/image/a running star/cancel"
    gives 130 ": cancelled" "$OMNIFS" wait "$mnt/image/a running star"
}
it "wait exits 130 for a cancelled job" cancelled_job
it "umount ends it" "$OMNIFS" umount "$mnt"
it "umount says when nothing is mounted" gives 1 "nothing is mounted" "$OMNIFS" umount "$mnt"
it "mount.omnifs SOURCE DIR mounts, as mount(8) calls it" as_mount_helper

it "bench names the profiles there are before it measures" gives 2 "there is no profile foo; there are image_default" "$OMNIFS" bench foo

# ---- models, doctor ----

it "models lists the embedded model" gives 0 "omni-mini" "$OMNIFS" models
it "models inspect says the family" gives 0 "family: flux2-klein" "$OMNIFS" models inspect omni-mini
it "models verify finds it whole" gives 0 "is finite" "$OMNIFS" models verify omni-mini
listed_once() {
    [ "$(OMNIFS_MODELS=$PWD/models:$PWD/models/../models "$OMNIFS" models | grep -c '^omni-mini ')" = 1 ]
}
it "a model is listed once, whatever its folder is called" listed_once
it "models inspect says that a folder holds no model" gives 1 "holds no model: expected" "$OMNIFS" models inspect "$SCRATCH"
it "models names the near miss" gives 2 "did you mean inspect?" "$OMNIFS" models inspct omni-mini
broken_model() {
    cp -r models/omni-mini "$SCRATCH/broken" && truncate -s 1000000 "$SCRATCH/broken/transformer/diffusion_pytorch_model.safetensors" &&
        gives 1 "diffusion_pytorch_model.safetensors" "$OMNIFS" models verify "$SCRATCH/broken"
}
it "models verify names the file of a damaged model" broken_model
sums_beside() {
    cp -r models/omni-mini "$SCRATCH/summed" && (cd "$SCRATCH/summed" && sha256sum vae/* transformer/* >SHA256SUMS) &&
        gives 0 "vae/diffusion_pytorch_model.safetensors: sha256 as in $SCRATCH/summed/SHA256SUMS" \
            "$OMNIFS" models verify "$SCRATCH/summed" &&
        sed -i '/vae.config.json/s/^..../abcd/' "$SCRATCH/summed/SHA256SUMS" &&
        gives 1 "but expected is abcd" "$OMNIFS" models verify "$SCRATCH/summed"
}
it "models verify compares with the sums beside a model" sums_beside
it "models verify says when no sum is known" gives 0 "no sha256 is known" "$OMNIFS" models verify omni-mini
healthy() { # mounts of others on this machine are their business
    "$OMNIFS" doctor --json | python3 -c 'import json,sys
rows = json.load(sys.stdin)
assert {"/dev/fuse", "registry", "model omni-mini", "formats", "store"} <= {r["check"] for r in rows}
assert not [r for r in rows if r["verdict"] == "broken" and r["check"] != "mount"], rows'
}
it "doctor finds nothing broken here" healthy
gpus() { # FAKE_NVML TEXT: over a stand-in for the driver's library
    local nvml
    nvml=$(dirname "$OMNIFS")/tests/support/nvml/fake_nvml.so
    OMNIFS_NVML=$nvml FAKE_NVML=$1 "$OMNIFS" doctor | grep -F "$2"
}
it "doctor shows the GPUs with their driver" gpus "" "0: NVIDIA H200, 12.9 GB of 150 GB used, 37 % busy, driver 580.95.05"
it "doctor says why a driver does not work" gpus broken "the NVIDIA driver does not answer: Driver/library version mismatch"
dead_mount() {
    mount_at "$SCRATCH/dead" && kill -9 "$(cat "$SCRATCH/dead/.omnifs/pid")" || return 1
    sleep 1.5 # the kernel may still know the root's attributes
    soon gives 1 "its daemon is gone" "$OMNIFS" doctor
}
it "doctor finds a mount whose daemon died" dead_mount
remount() {
    "$OMNIFS" mount "$SCRATCH/dead.store" "$SCRATCH/dead" && [ -d "$SCRATCH/dead/image" ]
}
it "mount replaces the mount of a dead daemon" remount
bad_registry() {
    printf '[image_default]\nomni_model_id = omni-mini\nmodality = image\nstepz = 3\n' >"$SCRATCH/bad.ini"
    OMNIFS_REGISTRY=$SCRATCH/bad.ini gives 1 "bad.ini:4" "$OMNIFS" doctor
}
it "doctor names the line of a broken registry" bad_registry
chosen_device() {
    OMNIFS_DEVICE=$1 gives 1 "$2" "$OMNIFS" doctor
}
it "doctor tells of a device that is named and does not open" chosen_device cuda:7 "broken  devices "
it "doctor tells of a device that does not exist" chosen_device gpu "device 'gpu' is not known"
it "a wrong OMNIFS_LOG is told" env OMNIFS_LOG=loud bash -c '"$OMNIFS" models 2>&1 | grep -q "expected error, warn, info or debug"'

done_testing
