/* Any bytes as a registry.ini: an error with a sentence, or a registry that can be used. */
#include <stdint.h>
#include <stdlib.h>

#include "job/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct registry *r = NULL;
    struct err e = {0};
    if (registry_parse((const char *)data, size, "registry.ini", &r, &e)) {
        if (!*e.text)
            abort();
        return 0;
    }
    for (int i = 0; i < r->profile_count; i++)
        if (!registry_profile(r, r->profiles[i].name) || r->profiles[i].width < 16)
            abort();
    registry_unref(r);
    return 0;
}
