/* Version and commit of this build. */
#ifndef OMNIFS_BASE_VERSION_H
#define OMNIFS_BASE_VERSION_H

extern const char omnifs_version[]; /* "0.1.0" */
extern const char omnifs_commit[];  /* "fcc108e13a4b", or "unknown" outside of git */

#endif
