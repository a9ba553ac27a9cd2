/* A request that was read, and what is known of the features in it. */

#ifndef FULLFUNNEL_REQUEST_H
#define FULLFUNNEL_REQUEST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "words.h"

enum { USER, ITEM, SIDES };
enum { WORD, INTEGER, NUMBER, TEXT, KINDS };

typedef struct {
    int side, kind;
    bool sequence, refuses;       /* refuses: that a value is missing */
    Table *table;                 /* of words */
    int64_t unknown, missing, fed; /* fed: what the graph takes for `missing` */
    Py_ssize_t main, most;        /* of a sequence: which feature it runs along, perhaps itself; how many steps are kept */
    Py_ssize_t place;             /* among the single features of its side and kind, or among all sequences */
} Feature;

typedef struct {
    PyObject_HEAD
    Table *names, *outputs;
    Feature *features;
    Py_ssize_t count, sequences, max_bytes;
    Py_ssize_t wide[SIDES], narrow[SIDES], texts[SIDES]; /* how many single features are int64, float32, strings */
} Reader;

/* The values of one feature, or of several that follow each other: of one of these kinds. */
typedef struct {
    int64_t *wide;
    float *narrow;
    PyObject *texts; /* a list */
} Cells;

/* A sequence in each row: the members of all of them, one after the other, and how many each has. */
typedef struct {
    Cells members;
    int64_t *lengths;
} Steps;

/* A plain request. */
typedef struct {
    PyObject_HEAD
    Reader *reader;
    Cells sides[SIDES]; /* [C, rows] of each kind */
    Steps *sequences;
    Py_ssize_t count; /* of candidates; 0 until the first column */
    Py_ssize_t order; /* the number of the output to sort by, or -1 */
    Py_ssize_t top;   /* how many are asked for, or 0 */
} Request;

extern PyTypeObject RequestType;

static inline Py_ssize_t rows_of(const Request *request, int side)
{
    return side == USER ? 1 : request->count;
}

/* The plain request that a body is; NULL for any other, with or without an error set. See reading.c. */
Request *read_request(Reader *reader, const char *text, const char *end, Py_ssize_t most);

/* Where the list of inputs is in the JSON. */
typedef struct {
    const char *from, *to;
} Inputs;

/* The plain request that tensors are whose data lie behind the JSON that describes them; NULL for any other, with or without an
 * error set. See tensors.c. */
Request *read_tensors(Reader *reader, const char *text, const char *data, const char *end, Py_ssize_t most, Inputs *inputs);

/* What `Reader.join` answers; NULL with an error set. See joining.c. */
PyObject *join_requests(const Reader *reader, PyObject *const *requests, Py_ssize_t count, Py_ssize_t most);

#endif
