/* Putting values where they belong in a request.
 *
 * Knows kinds of features, and which values are plain. Does not know how values are sent.
 */

#ifndef FULLFUNNEL_CELLS_H
#define FULLFUNNEL_CELLS_H

#include "request.h"

#include <math.h>

/* A request without values, and which features have been seen of it: none. NULL where there is no memory. */
Request *begin(Reader *reader, bool **seen);

/* The request, if all was plain so far and is now: what has not been seen is missing. NULL if not; frees what is then of no use. */
Request *finish(Request *request, bool *seen, bool plain);

/* Room for the single values of a side, whose rows are known. */
bool make_side(Request *request, int side);

/* Room for a sequence of so many members in all rows, and the length 0 for each row. */
bool make_steps(Request *request, const Feature *feature, Py_ssize_t most);

/* Where the single values of a feature are, and at which index they begin. */
static inline Cells column_of(const Request *request, const Feature *feature, Py_ssize_t *first)
{
    *first = feature->place * rows_of(request, feature->side);
    return request->sides[feature->side];
}

static inline bool put_text(PyObject *list, Py_ssize_t i, const char *bytes, Py_ssize_t length)
{
    PyObject *text = PyUnicode_DecodeUTF8(bytes, length, NULL);
    return text != NULL && PyList_SetItem(list, i, text) == 0;
}

static inline bool put_missing(const Feature *feature, const Cells *cells, Py_ssize_t i)
{
    if (feature->refuses) {
        return false;
    }
    if (feature->kind == TEXT) {
        return put_text(cells->texts, i, "", 0);
    }
    if (feature->kind == NUMBER) {
        cells->narrow[i] = NAN;
    } else {
        cells->wide[i] = feature->missing;
    }
    return true;
}

/* A string of a feature of words or strings; the empty one is missing. */
static inline bool put_string(const Reader *reader, const Feature *feature, const Cells *cells, Py_ssize_t i, const String *string)
{
    if (string->length == 0) {
        return put_missing(feature, cells, i);
    }
    if (feature->kind == TEXT) {
        return string->length <= reader->max_bytes && put_text(cells->texts, i, string->bytes, string->length);
    }
    int32_t row = row_of(feature->table, string);
    cells->wide[i] = row == FREE ? feature->unknown : row;
    return row != FREE || (string->ascii && string->length <= reader->max_bytes);
}

#endif
