/* Which folders are jobs. */
#include <string.h>

#include "fs/fs.h"

bool fs_modality_of(int64_t parent, enum modality *out)
{
    if (parent < TREE_IMAGE || parent > TREE_GIF)
        return false;
    *out = (enum modality)(parent - TREE_IMAGE);
    return true;
}

bool fs_is_job_folder(const struct node *n)
{
    enum modality modality;
    return S_ISDIR(n->st.st_mode) && n->id >= TREE_FIRST_ID && n->name[0] != '.' &&
           fs_modality_of(n->parent, &modality);
}
