/* LoRA files from lists: "NAME DIM DIM …" (values by det.h), "NAME = NUMBER", and "metadata JSON"
 * for what PEFT writes about its adapters. Lines that begin with '#' say nothing. */
#ifndef TESTS_LORA_FILE_H
#define TESTS_LORA_FILE_H

/* Writes the file; fails the test on error. */
void lora_file_write(const char *list, const char *path);
/* The same from a file with the list. */
void lora_file_convert(const char *list_path, const char *path);

#endif
