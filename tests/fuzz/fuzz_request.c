/* Any bytes as a prompt.ini, and as a metadata.json: an error with a sentence, or a request that
 * survives its own record. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "job/registry.h"
#include "job/request.h"

static const char profiles[] = "[image_default]\nomni_model_id = m\nmodality = image\n"
                               "[video_default]\nomni_model_id = m\nmodality = video\n";

static const struct registry *registry(void)
{
    static struct registry *r;
    struct err e;
    if (!r && registry_parse(profiles, sizeof profiles - 1, "registry.ini", &r, &e))
        abort();
    return r;
}

static void reproduce(const struct request *r)
{
    json_t *root = json_pack("{so}", "request", request_json(r));
    char *text = json_dumps(root, 0);
    struct request again;
    struct err e;
    const struct profile *p;
    if (!text || request_from_json(text, strlen(text), "metadata.json", &again, &e) ||
        request_normalise(&again, registry(), "metadata.json", &p, &e))
        abort();
    request_free(&again);
    free(text);
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct request r;
    struct err e = {0};
    const struct profile *p;
    enum modality m = (enum modality)(data[0] % MODALITY_COUNT);
    const char *text = (const char *)data + 1;
    int code = request_parse(text, size - 1, "prompt.ini", m, &r, &e);
    if (!code)
        code = request_normalise(&r, registry(), "prompt.ini", &p, &e);
    if (!code)
        reproduce(&r);
    else if (!*e.text)
        abort();
    request_free(&r);
    request_from_json(text, size - 1, "metadata.json", &r, &e);
    request_free(&r);
    return 0;
}
