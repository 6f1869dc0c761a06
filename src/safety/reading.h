/* Readings: a prompt in the one form that rules are compared with, and as the disguises it may be
 * written in would be read.
 *
 * A reading is " word word word ": words of letters and digits, case folded, NFKC, without accents
 * and invisible characters, letters of other alphabets that look Latin made Latin, one blank before
 * and after each word. Ideographs are words by themselves. */
#ifndef OMNIFS_SAFETY_READING_H
#define OMNIFS_SAFETY_READING_H

#include "base/str.h"

enum reading {
    READING_PLAIN,
    READING_DIGITS_I, /* h3nta1: digits and signs inside words as letters, 1 as i; aaa as a */
    READING_DIGITS_L, /* the same with 1 as l; aaa as aa */
    READING_SPACED,   /* "n u d e": runs of three and more single letters joined */
    READING_COUNT
};

/* Case folded, compatible characters unified, marks and invisibles removed; 0, -EINVAL, -ENOMEM. */
int reading_fold(const char *text, struct str *out);
/* Appends a reading of folded text. */
void reading_make(const char *folded, enum reading how, struct str *out);

#endif
