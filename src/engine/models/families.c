/* The table of families. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "engine/models/family.h"

static const struct family *const families[] = {&family_flux2_klein, &family_stable_diffusion,
                                                &family_stable_diffusion_xl, &family_zimage};

static bool claims(const struct family *f, const struct checkpoint *c)
{
    for (const char *const *name = f->classes; *name; name++)
        if (strcmp(*name, c->class_name) == 0)
            return !f->detect || f->detect(c);
    return false;
}

int family_find(const struct checkpoint *c, const struct family **out, struct err *e)
{
    AUTO_STR struct str known = {0};
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (claims(families[i], c)) {
            *out = families[i];
            return 0;
        }
        for (const char *const *name = families[i]->classes; *name; name++)
            str_addf(&known, "%s%s", known.len ? ", " : "", *name);
    }
    return err_set(e, -EINVAL, "%s: the pipeline class '%s' is not known; known are: %s",
                   config_path(c->index), c->class_name, str_cstr(&known));
}
