/* Requests that share a run, as the arrays of one: users and candidates of each follow those of the one before.
 *
 * Knows how sequences are cut and padded, as `Columns` of `service/scoring/columns.py` does. Does not know JSON.
 */

#include <math.h>
#include <string.h>

#include "request.h"

/* The columns of a side of all requests, whose rows follow each other: int64 [C, N], float32 [C, N], strings [C * N]. */
static PyObject *join_side(const Reader *reader, PyObject *const *requests, Py_ssize_t count, int side, Py_ssize_t rows)
{
    PyObject *wide = PyByteArray_FromStringAndSize(NULL, reader->wide[side] * rows * (Py_ssize_t)sizeof(int64_t));
    PyObject *narrow = PyByteArray_FromStringAndSize(NULL, reader->narrow[side] * rows * (Py_ssize_t)sizeof(float));
    PyObject *texts = PyList_New(reader->texts[side] * rows);
    PyObject *found = wide != NULL && narrow != NULL && texts != NULL ? PyTuple_Pack(3, wide, narrow, texts) : NULL;
    Py_ssize_t first = 0;
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        const Request *request = (const Request *)requests[i];
        const Cells *cells = &request->sides[side];
        Py_ssize_t own = rows_of(request, side);
        for (Py_ssize_t c = 0; c < reader->wide[side]; c++) {
            int64_t *to = (int64_t *)(void *)PyByteArray_AS_STRING(wide) + c * rows + first;
            memcpy(to, cells->wide + c * own, (size_t)own * sizeof(int64_t));
        }
        for (Py_ssize_t c = 0; c < reader->narrow[side]; c++) {
            float *to = (float *)(void *)PyByteArray_AS_STRING(narrow) + c * rows + first;
            memcpy(to, cells->narrow + c * own, (size_t)own * sizeof(float));
        }
        for (Py_ssize_t c = 0; c < reader->texts[side]; c++) {
            for (Py_ssize_t row = 0; row < own; row++) {
                PyObject *text = PyList_GET_ITEM(cells->texts, c * own + row);
                PyList_SET_ITEM(texts, c * rows + first + row, Py_NewRef(text));
            }
        }
        first += own;
    }
    Py_XDECREF(wide);
    Py_XDECREF(narrow);
    Py_XDECREF(texts);
    return found;
}

static bool is_missing(const Feature *feature, const Cells *cells, Py_ssize_t i)
{
    if (feature->kind == TEXT) {
        return PyUnicode_GET_LENGTH(PyList_GET_ITEM(cells->texts, i)) == 0;
    }
    return feature->kind == NUMBER ? isnan(cells->narrow[i]) : cells->wide[i] == feature->missing;
}

/* How many of `length` members from `first` on are there. */
static Py_ssize_t count_present(const Feature *feature, const Cells *cells, Py_ssize_t first, int64_t length)
{
    Py_ssize_t present = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        present += !is_missing(feature, cells, first + i);
    }
    return present;
}

/* The most steps that a row of a sequence keeps, at least 1. */
static Py_ssize_t width_of(const Feature *main, PyObject *const *requests, Py_ssize_t count)
{
    Py_ssize_t width = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        const Request *request = (const Request *)requests[i];
        const Steps *steps = &request->sequences[main->place];
        Py_ssize_t first = 0;
        for (Py_ssize_t row = 0; row < rows_of(request, main->side); row++) {
            Py_ssize_t present = count_present(main, &steps->members, first, steps->lengths[row]);
            width = Py_MAX(width, Py_MIN(present, main->most));
            first += steps->lengths[row];
        }
    }
    return width;
}

/* Where the steps of a sequence go that is padded: to so many cells. */
static PyObject *padding(const Feature *feature, Py_ssize_t cells)
{
    if (feature->kind == TEXT) {
        PyObject *list = PyList_New(cells);
        for (Py_ssize_t i = 0; list != NULL && i < cells; i++) {
            PyList_SET_ITEM(list, i, PyUnicode_New(0, 0)); /* of which there is but one */
        }
        return list;
    }
    bool narrow = feature->kind == NUMBER;
    PyObject *bytes = PyByteArray_FromStringAndSize(NULL, cells * (Py_ssize_t)(narrow ? sizeof(float) : sizeof(int64_t)));
    for (Py_ssize_t i = 0; bytes != NULL && i < cells; i++) {
        if (narrow) {
            ((float *)(void *)PyByteArray_AS_STRING(bytes))[i] = NAN;
        } else {
            ((int64_t *)(void *)PyByteArray_AS_STRING(bytes))[i] = feature->fed;
        }
    }
    return bytes;
}

static void put_step(const Feature *feature, const Cells *cells, Py_ssize_t i, PyObject *padded, Py_ssize_t at)
{
    if (feature->kind == TEXT) {
        PyList_SetItem(padded, at, Py_NewRef(PyList_GET_ITEM(cells->texts, i)));
    } else if (feature->kind == NUMBER) {
        ((float *)(void *)PyByteArray_AS_STRING(padded))[at] = cells->narrow[i];
    } else {
        int64_t value = cells->wide[i];
        ((int64_t *)(void *)PyByteArray_AS_STRING(padded))[at] = value == feature->missing ? feature->fed : value;
    }
}

/* A sequence of all requests, [rows, steps]: of the steps in which the one it runs along has a value, the last `most` of each row. */
static PyObject *join_sequence(const Reader *reader, const Feature *feature, PyObject *const *requests, Py_ssize_t count,
                               Py_ssize_t rows, Py_ssize_t width)
{
    const Feature *main = &reader->features[feature->main];
    PyObject *padded = padding(feature, rows * width);
    Py_ssize_t to = 0;
    for (Py_ssize_t i = 0; padded != NULL && i < count; i++) {
        const Request *request = (const Request *)requests[i];
        const Steps *steps = &request->sequences[feature->place], *leading = &request->sequences[main->place];
        Py_ssize_t first = 0;
        for (Py_ssize_t row = 0; row < rows_of(request, feature->side); row++, to += width) {
            Py_ssize_t skip = count_present(main, &leading->members, first, steps->lengths[row]) - main->most, kept = 0;
            for (Py_ssize_t member = first; member < first + steps->lengths[row]; member++) {
                if (!is_missing(main, &leading->members, member) && skip-- <= 0) {
                    put_step(feature, &steps->members, member, padded, to + kept++);
                }
            }
            first += steps->lengths[row];
        }
    }
    return padded == NULL ? NULL : Py_BuildValue("(Nn)", padded, width);
}

/* The number of its request, for each candidate: int64 [N]. */
static PyObject *owners(PyObject *const *requests, Py_ssize_t count, Py_ssize_t rows)
{
    PyObject *bytes = PyByteArray_FromStringAndSize(NULL, rows * (Py_ssize_t)sizeof(int64_t));
    int64_t *to = bytes == NULL ? NULL : (int64_t *)(void *)PyByteArray_AS_STRING(bytes);
    for (Py_ssize_t i = 0; bytes != NULL && i < count; i++) {
        for (Py_ssize_t row = 0; row < ((const Request *)requests[i])->count; row++) {
            *to++ = i;
        }
    }
    return bytes;
}

PyObject *join_requests(const Reader *reader, PyObject *const *requests, Py_ssize_t count, Py_ssize_t most)
{
    Py_ssize_t rows[SIDES] = {count, 0};
    for (Py_ssize_t i = 0; i < count; i++) {
        rows[ITEM] += ((const Request *)requests[i])->count;
    }
    PyObject *sequences = PyTuple_New(reader->sequences);
    for (Py_ssize_t i = 0; sequences != NULL && i < reader->count; i++) {
        const Feature *feature = &reader->features[i];
        if (!feature->sequence) {
            continue;
        }
        Py_ssize_t width = width_of(&reader->features[feature->main], requests, count);
        if (width * rows[feature->side] > most) {
            Py_DECREF(sequences);
            Py_RETURN_NONE;
        }
        PyObject *joined = join_sequence(reader, feature, requests, count, rows[feature->side], width);
        if (joined == NULL) {
            Py_CLEAR(sequences);
        } else {
            PyTuple_SET_ITEM(sequences, feature->place, joined);
        }
    }
    PyObject *user = join_side(reader, requests, count, USER, rows[USER]);
    PyObject *item = join_side(reader, requests, count, ITEM, rows[ITEM]);
    PyObject *users = owners(requests, count, rows[ITEM]);
    PyObject *found = NULL;
    if (sequences != NULL && user != NULL && item != NULL && users != NULL) {
        found = Py_BuildValue("((OO)OO)", user, item, sequences, users);
    }
    Py_XDECREF(sequences);
    Py_XDECREF(user);
    Py_XDECREF(item);
    Py_XDECREF(users);
    return found;
}
