/* Vocabularies by their bytes: a hash table with open addressing, which nothing changes once it is made.
 *
 * Knows words and rows. Does not know features.
 */

#ifndef FULLFUNNEL_WORDS_H
#define FULLFUNNEL_WORDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static const int32_t FREE = -1;

typedef struct {
    uint32_t hash, start, length;
    int32_t row;
} Slot;

/* Words and the row of each, a number of at least 0, to be found by their bytes in UTF-8. */
typedef struct {
    PyObject_HEAD
    Slot *slots;
    char *words;
    uint32_t mask;
} Table;

/* FNV-1a, byte by byte while a string is looked through */
static const uint64_t HASH_START = 0xcbf29ce484222325u, HASH_PRIME = 0x100000001b3u;

static inline uint64_t hashed(uint64_t hash, unsigned char byte)
{
    return (hash ^ byte) * HASH_PRIME;
}

static inline uint32_t folded(uint64_t hash)
{
    return (uint32_t)(hash ^ hash >> 32);
}

/* A string: its bytes, their hash, and whether all are ASCII. */
typedef struct {
    const char *bytes;
    Py_ssize_t length;
    uint32_t hash;
    bool ascii;
} String;

/* Sets hash and ascii of one whose bytes are known. */
static inline void look_at(String *string)
{
    uint64_t hash = HASH_START;
    unsigned char all = 0;
    for (Py_ssize_t i = 0; i < string->length; i++) {
        unsigned char byte = (unsigned char)string->bytes[i];
        hash = hashed(hash, byte);
        all |= byte;
    }
    string->hash = folded(hash);
    string->ascii = all < 0x80;
}

static inline int32_t row_of(const Table *table, const String *string)
{
    const char *word = string->bytes;
    size_t length = (size_t)string->length;
    uint32_t hash = string->hash;
    for (uint32_t at = hash & table->mask;; at = (at + 1) & table->mask) {
        const Slot *slot = &table->slots[at];
        if (slot->row == FREE ||
            (slot->hash == hash && slot->length == length && memcmp(table->words + slot->start, word, length) == 0)) {
            return slot->row;
        }
    }
}

/* Made of a dictionary from str to int; ValueError where it does not fit. */
extern PyTypeObject TableType;

#endif
