/* Pictures in the terminal, by libchafa: with pixels where the terminal has them (kitty, iTerm,
 * sixel), else with coloured block characters. */
#ifndef OMNIFS_CLI_SHOW_H
#define OMNIFS_CLI_SHOW_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "base/picture.h"

/* Draws frame 0 on the terminal `to`, in at most `max_rows` rows. `pixels` false: characters only,
 * so that show_erase can take it back. Returns the rows used, or a negative errno. */
int show_picture(FILE *to, const struct picture *p, int max_rows, bool pixels, struct err *e);
/* Moves the cursor up over `rows` rows and clears them. */
void show_erase(FILE *to, int rows);

#endif
