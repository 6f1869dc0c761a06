#include "base/version.h"

const char omnifs_version[] = OMNIFS_VERSION;
const char omnifs_commit[] = OMNIFS_COMMIT;
