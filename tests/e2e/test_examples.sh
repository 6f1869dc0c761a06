#!/bin/bash
# Every example runs as it is.
. tests/support/tap.sh

# draws FILE TYPE COMMAND …: the command succeeds and FILE is of that type (as file(1) would say).
draws() {
    local file=$1 magic=$2
    shift 2
    "$@" || return 1
    [ -s "$file" ] || { echo "$file is missing"; return 1; }
    head -c 16 "$file" | tr -d '\0' | grep -aq "$magic" || { echo "$file is no $magic"; return 1; }
}

# draws_folder FOLDER RESULT MAGIC: without a mount.
draws_folder() {
    local out=$SCRATCH/run/$1
    draws "$out/$2" "$3" "$OMNIFS" run -q "examples/$1/prompt.ini" -o "$out"
}

it "image/apple draws a PNG" draws_folder image/apple image.png PNG
it "image/four-stars draws four" draws_folder image/four-stars image-4.png PNG
it "image/from-sketch draws from a picture" draws_folder image/from-sketch image.png PNG
it "image/repaint draws where the mask is white" draws_folder image/repaint image.png PNG
it "image/enlarge enlarges a picture" draws_folder image/enlarge image.png PNG
it "image/wider draws around a picture" draws_folder image/wider image.png PNG

# repeats FOLDER: metadata.json beside the same pictures gives the same bytes.
repeats() {
    local first=$SCRATCH/run/$1 again=$SCRATCH/again/$1
    mkdir -p "$again"
    cp examples/"$1"/*.png "$first/metadata.json" "$again" || return 1
    "$OMNIFS" run -q "$again/metadata.json" -o "$again/out" || return 1
    cmp "$first/image.png" "$again/out/image.png"
}
it "image/from-sketch's metadata.json draws the same again" repeats image/from-sketch
it "image/repaint's metadata.json draws the same again" repeats image/repaint
it "video/sailboat draws an MP4" draws_folder video/sailboat video.mp4 ftyp
it "image/wider's metadata.json draws the same again" repeats image/wider
it "image/enlarge's metadata.json enlarges the same again" repeats image/enlarge
it "video/drawn-over draws over a clip" draws_folder video/drawn-over video.mp4 ftyp
it "video/frames draws single frames" draws_folder video/frames frame-0004.png PNG
it "gif/star draws a GIF" draws_folder gif/star animation.gif GIF89a
it "gif/from-clip converts a clip" draws_folder gif/from-clip animation.gif GIF89a

it "the Makefile draws every prompt" draws "$SCRATCH/make/tree.png" PNG \
    make -s -C examples/make OMNIFS="$OMNIFS" OUT="$SCRATCH/make"
nothing_to_do() {
    make -q -C examples/make OMNIFS="$OMNIFS" OUT="$SCRATCH/make"
}
it "the Makefile does nothing the second time" nothing_to_do

# The library: against an installation, as a stranger would build it.
builds_against_the_library() {
    local root=$SCRATCH/root flags
    make -s BUILD="$BUILD" install PREFIX="$root" >/dev/null || return 1
    flags=$(PKG_CONFIG_PATH=$root/lib/pkgconfig pkg-config --cflags --libs omni) || return 1
    # shellcheck disable=SC2086 # a list of flags
    cc ${SANITIZE:+-fsanitize=$SANITIZE} examples/library/draw.c $flags -o "$SCRATCH/draw"
}
installed_program_draws() {
    (cd / && env -u OMNIFS_REGISTRY -u OMNIFS_MODELS "$SCRATCH/root/bin/omnifs" run -q \
        "$SCRATCH/apple.ini" -o "$SCRATCH/installed")
}
it "draw.c builds against the installed library" builds_against_the_library
it "draw.c draws" draws "$SCRATCH/apple.ppm" 'P6 ' \
    "$SCRATCH/draw" models/omni-mini "a red apple, 3d render" "$SCRATCH/apple.ppm"
printf 'prompt = a red apple\nsize = 64x64\nsteps = 1\n' >"$SCRATCH/apple.ini"
it "an installation under any prefix finds its registry, model and word lists" \
    draws "$SCRATCH/installed/image.png" PNG installed_program_draws

mnt=$SCRATCH/mnt
it "a mount answers" mount_at "$mnt"
copied_in() {
    cp -r examples/image/repaint "$mnt/image/"
    cat "$mnt/image/repaint/wait" >/dev/null
}
it "a folder with picture and mask, copied into a mount, draws" \
    draws "$mnt/image/repaint/image.png" PNG copied_in
it "list-of-prompts.sh draws a list" draws "$mnt/image/a-slice-of-pizza/image.png" PNG \
    examples/list-of-prompts.sh "$mnt" examples/prompts.txt size=128x128 steps=4 seed=1

# watched COUNT: the inotifywait of process $watcher watches so many folders.
watched() {
    local pid
    pid=$(pgrep -x -P "$watcher" inotifywait) || return 1
    [ "$(cat "/proc/$pid/fdinfo/"* 2>/dev/null | grep -c '^inotify wd')" -ge "$1" ]
}
collects() {
    examples/collect-results.sh "$mnt/image" "$SCRATCH/collected" 1 >"$SCRATCH/collect.log" 2>&1 &
    local watcher=$! folders
    folders=$(find "$mnt/image" -type d | wc -l)
    soon watched "$folders" && mkdir "$mnt/image/late" && soon watched $((folders + 1)) || return 1
    printf 'prompt = a yellow star\nsize = 128x128\nsteps = 2\n' >"$mnt/image/late/prompt.ini"
    local tries=0
    while kill -0 "$watcher" 2>/dev/null && [ $((tries += 1)) -lt 600 ]; do sleep 0.2; done
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    [ -s "$SCRATCH/collected/late-image.png" ] && [ -s "$SCRATCH/collected/late.json" ]
}
it "collect-results.sh copies what appears" collects

copied_folder_runs() {
    cp -r examples/gif/from-clip "$mnt/gif/copied" && grep -qx done "$mnt/gif/copied/wait"
}
it "a copied example folder is a job" copied_folder_runs

done_testing
