/* Room for a request, and what becomes of features that are not in it. Knows memory. Does not know values. */

#include "cells.h"

#include <string.h>

static bool make_cells(Cells *cells, Py_ssize_t wide, Py_ssize_t narrow, Py_ssize_t texts)
{
    cells->wide = PyMem_Malloc((size_t)wide * sizeof(int64_t));
    cells->narrow = PyMem_Malloc((size_t)narrow * sizeof(float));
    cells->texts = texts > 0 ? PyList_New(texts) : NULL;
    return cells->wide != NULL && cells->narrow != NULL && (texts == 0 || cells->texts != NULL);
}

bool make_side(Request *request, int side)
{
    const Reader *reader = request->reader;
    Py_ssize_t rows = rows_of(request, side);
    return make_cells(&request->sides[side], reader->wide[side] * rows, reader->narrow[side] * rows,
                      reader->texts[side] * rows);
}

bool make_steps(Request *request, const Feature *feature, Py_ssize_t most)
{
    Steps *steps = &request->sequences[feature->place];
    steps->lengths = PyMem_Calloc((size_t)rows_of(request, feature->side), sizeof(int64_t));
    bool narrow = feature->kind == NUMBER, text = feature->kind == TEXT;
    return steps->lengths != NULL &&
           make_cells(&steps->members, narrow || text ? 0 : most, narrow ? most : 0, text ? most : 0);
}

Request *begin(Reader *reader, bool **seen)
{
    Request *request = (Request *)RequestType.tp_alloc(&RequestType, 0);
    *seen = PyMem_Calloc((size_t)reader->count + 1, sizeof(bool));
    if (request != NULL) {
        request->reader = (Reader *)Py_NewRef(reader);
        request->order = FREE;
        request->sequences = PyMem_Calloc((size_t)reader->sequences + 1, sizeof(Steps));
    }
    if (request == NULL || *seen == NULL || request->sequences == NULL || !make_side(request, USER)) {
        Py_CLEAR(request);
    }
    return request;
}

/* A feature that is not given is missing in every row. */
static bool fill_missing(Request *request, const Feature *feature)
{
    if (feature->sequence) {
        return make_steps(request, feature, 0);
    }
    Py_ssize_t first, rows = rows_of(request, feature->side);
    Cells cells = column_of(request, feature, &first);
    for (Py_ssize_t i = 0; i < rows; i++) {
        if (!put_missing(feature, &cells, first + i)) {
            return false;
        }
    }
    return true;
}

/* What runs along a sequence has as many members in each row. */
static bool are_parallel(const Request *request)
{
    const Reader *reader = request->reader;
    for (Py_ssize_t i = 0; i < reader->count; i++) {
        const Feature *feature = &reader->features[i];
        if (feature->sequence && feature->main != i) {
            const int64_t *own = request->sequences[feature->place].lengths;
            const int64_t *main = request->sequences[reader->features[feature->main].place].lengths;
            if (memcmp(own, main, (size_t)rows_of(request, feature->side) * sizeof(int64_t)) != 0) {
                return false;
            }
        }
    }
    return true;
}

Request *finish(Request *request, bool *seen, bool plain)
{
    plain = plain && request->count > 0;
    for (Py_ssize_t i = 0; plain && i < request->reader->count; i++) {
        plain = seen[i] || fill_missing(request, &request->reader->features[i]);
    }
    if (!plain || !are_parallel(request)) {
        Py_CLEAR(request);
    }
    PyMem_Free(seen);
    return request;
}
