/* Golden checkpoints: folders with configs, the names and shapes of all tensors (the values follow
 * from the names, see det.h) and pictures that the original pipeline drew from them. They are
 * written by tests/reference/golden_*.py.
 *
 *     model_index.json, scheduler/, PART/config.json    as in the hub's layout
 *     tensors.txt                                       "PART NAME DIM DIM …" a line
 *     cases.json      [{file, prompt, width, height, steps, guidance, seed}], and where it is not
 *                     left out negative_prompt, scheduler, mode, frames, loop, strength, images
 *                     [[width, height, k]] and mask [width, height, k] (see pictures.h)
 *     FILE.rgb        8-bit pixels, frame after frame */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

/* Builds the checkpoint in a temporary folder with `tokenizer` (a folder) as its tokenizer, and
 * `tokenizer`_2, where there is one, as its second; the path into out[64]. file_remove_tree() ends
 * it. Fails the test on error. */
void golden_build(const char *golden, const char *tokenizer, char *out);
/* Its parts alone, into the folder `to`. */
void golden_write_parts(const char *golden, const char *to);
/* Draws every case in fp32 and fails the test where a picture is less than `least_db` like it. */
void golden_check(const char *golden, const char *tokenizer, double least_db);

#endif
