/* How a prompt is put before CLIP: start token, prompt, end token, padded to a fixed number of
 * tokens. Source: huggingface/diffusers, pipelines/stable_diffusion/pipeline_stable_diffusion.py.
 */
#ifndef OMNI_CLIP_PROMPT_H
#define OMNI_CLIP_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/text/tokenizer.h"

/* A tokenizer that has the tokens for it; -EINVAL names what is missing. `folder` is for messages.
 */
int clip_prompt_check(const struct tokenizer *t, const char *folder, struct err *e);
/* Fills ids[count]; *truncated is set where the prompt had more than count - 2 tokens, else left as
 * it is. */
int clip_prompt(const struct tokenizer *t, const char *prompt, int32_t *ids, int count,
                bool *truncated, struct err *e);

#endif
