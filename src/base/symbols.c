#include "base/symbols.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

const char *symbols_find(void *library, const char *prefix, const char *const *names, size_t count,
                         void *table)
{
    char name[96];
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s%s", prefix, names[i]);
        void *symbol = dlsym(library, name);
        if (!symbol)
            return names[i];
        /* ISO C has no cast from object to function pointers */
        memcpy((char *)table + i * sizeof(symbol), &symbol, sizeof(symbol));
    }
    return NULL;
}
