/* A generator without a model: one colour a seed, in no time, so that thousands of jobs say
 * something about the mount and nothing about the engine. The prompt tells it what to do:
 *     "sleep=MS"  takes that long (checking for cancellation), in `steps` steps
 *     "fail"      fails
 * Each drawn prompt is appended as a line to the file $OMNIFS_STUB_LOG. */
#ifndef TESTS_STUB_GENERATOR_H
#define TESTS_STUB_GENERATOR_H

#include "job/generator.h"

extern const struct generator stub_generator;

#endif
