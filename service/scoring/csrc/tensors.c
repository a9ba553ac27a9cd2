/* A request as tensors of the Open Inference Protocol, whose data are raw bytes one after the other: what `service/api/v2` and
 * `service/scoring/columns.py` do with most of them, without an object for each value.
 *
 * Plain is a request of one user, in the datatypes that the model announces. `tensors` are the JSON objects that describe them.
 * Knows how a tensor is described and laid out. Does not know errors.
 */

#include <string.h>

#include "cells.h"

/* What is said of a tensor: of so many rows, and if it is a sequence of so many steps in each. */
typedef struct {
    const Feature *feature;
    Py_ssize_t rows, steps, bytes;
} Tensor;

static PyObject *of(PyObject *tensor, const char *name)
{
    return PyDict_GetItemString(tensor, name);
}

/* A whole number from 0 on, or -1. */
static Py_ssize_t size_of(PyObject *number)
{
    Py_ssize_t size = number != NULL && PyLong_CheckExact(number) ? PyLong_AsSsize_t(number) : -1;
    if (size < 0) {
        PyErr_Clear();
    }
    return size < 0 ? -1 : size;
}

static const Feature *feature_of(const Reader *reader, PyObject *name, bool *seen)
{
    String string = {0};
    if (name == NULL || !PyUnicode_CheckExact(name)) {
        return NULL;
    }
    string.bytes = PyUnicode_AsUTF8AndSize(name, &string.length);
    if (string.bytes == NULL) {
        return NULL;
    }
    look_at(&string);
    int32_t number = row_of(reader->names, &string);
    if (number == FREE || number >= reader->count || seen[number]) {
        return NULL;
    }
    seen[number] = true;
    return &reader->features[number];
}

/* Whether it says what every tensor with raw bytes says, and nothing else, and it all is plain. */
static bool describe(PyObject *described, const Reader *reader, bool *seen, Tensor *tensor)
{
    static const char *const DATATYPES[KINDS] = {[WORD] = "BYTES", [INTEGER] = "INT64", [NUMBER] = "FP32", [TEXT] = "BYTES"};
    if (!PyDict_CheckExact(described) || PyDict_GET_SIZE(described) != 4) {
        return false;
    }
    PyObject *datatype = of(described, "datatype"), *shape = of(described, "shape"), *more = of(described, "parameters");
    tensor->feature = feature_of(reader, of(described, "name"), seen);
    if (tensor->feature == NULL || datatype == NULL || !PyUnicode_CheckExact(datatype) || shape == NULL ||
        !PyList_CheckExact(shape) || more == NULL || !PyDict_CheckExact(more) || PyDict_GET_SIZE(more) != 1) {
        return false;
    }
    bool sequence = tensor->feature->sequence;
    if (PyUnicode_CompareWithASCIIString(datatype, DATATYPES[tensor->feature->kind]) != 0 ||
        PyList_GET_SIZE(shape) != 1 + sequence) {
        return false;
    }
    tensor->rows = size_of(PyList_GET_ITEM(shape, 0));
    tensor->steps = sequence ? size_of(PyList_GET_ITEM(shape, 1)) : 1;
    tensor->bytes = size_of(of(more, "binary_data_size"));
    return tensor->rows > 0 && tensor->steps >= 0 && tensor->bytes >= 0;
}

/* Strings, each behind four bytes of its length, the lowest first. */
static bool take_strings(const Reader *reader, const Feature *feature, const Cells *cells, Py_ssize_t first, Py_ssize_t count,
                         const unsigned char *at, Py_ssize_t left)
{
    for (Py_ssize_t i = first; i < first + count; i++) {
        if (left < 4) {
            return false;
        }
        uint32_t length = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        left -= 4;
        if (length > left) {
            return false;
        }
        String string = {.bytes = (const char *)at + 4, .length = length};
        look_at(&string);
        if (!put_string(reader, feature, cells, i, &string)) {
            return false;
        }
        at += 4 + (Py_ssize_t)length;
        left -= length;
    }
    return left == 0;
}

/* Numbers of 4 or 8 bytes as they lie in memory here. */
static bool take_numbers(const Feature *feature, const Cells *cells, Py_ssize_t first, Py_ssize_t count, const char *at,
                         Py_ssize_t bytes)
{
    size_t size = feature->kind == NUMBER ? sizeof(float) : sizeof(int64_t);
    if (PY_BIG_ENDIAN || bytes % (Py_ssize_t)size != 0 || bytes / (Py_ssize_t)size != count) {
        return false;
    }
    memcpy(feature->kind == NUMBER ? (void *)(cells->narrow + first) : (void *)(cells->wide + first), at, (size_t)bytes);
    for (Py_ssize_t i = first; i < first + count; i++) {
        bool missing = feature->kind == NUMBER ? isnan(cells->narrow[i]) : cells->wide[i] == feature->missing;
        if ((missing && feature->refuses) || (feature->kind == NUMBER && isinf(cells->narrow[i]))) {
            return false;
        }
    }
    return true;
}

static bool take_tensor(Request *request, const Tensor *tensor, const char *at)
{
    const Feature *feature = tensor->feature;
    if (tensor->steps > tensor->bytes / 4 / tensor->rows) { /* a value takes at least four bytes */
        return false;
    }
    Py_ssize_t first = 0, count = tensor->rows * tensor->steps;
    Cells cells;
    if (feature->sequence) {
        if (!make_steps(request, feature, count)) {
            return false;
        }
        Steps *steps = &request->sequences[feature->place];
        for (Py_ssize_t row = 0; row < tensor->rows; row++) {
            steps->lengths[row] = tensor->steps;
        }
        cells = steps->members;
    } else {
        cells = column_of(request, feature, &first);
    }
    if (feature->kind == WORD || feature->kind == TEXT) {
        return take_strings(request->reader, feature, &cells, first, count, (const unsigned char *)at, tensor->bytes);
    }
    return take_numbers(feature, &cells, first, count, at, tensor->bytes);
}

static bool take_tensors(Request *request, bool *seen, PyObject *tensors, const char *at, const char *end, Py_ssize_t most)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(tensors); i++) {
        Tensor tensor;
        if (!describe(PyList_GET_ITEM(tensors, i), request->reader, seen, &tensor) || tensor.bytes > end - at) {
            return false;
        }
        if (tensor.feature->side == ITEM && request->count == 0) {
            if (tensor.rows > most) {
                return false;
            }
            request->count = tensor.rows;
            if (!make_side(request, ITEM)) {
                return false;
            }
        }
        if (tensor.rows != rows_of(request, tensor.feature->side) || !take_tensor(request, &tensor, at)) {
            return false;
        }
        at += tensor.bytes;
    }
    return at == end;
}

Request *read_tensors(Reader *reader, PyObject *tensors, const char *at, const char *end, Py_ssize_t most)
{
    bool *seen;
    Request *request = begin(reader, &seen);
    bool plain = request != NULL && take_tensors(request, seen, tensors, at, end, most);
    return finish(request, seen, plain);
}
