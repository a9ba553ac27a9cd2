/* A request as tensors of the Open Inference Protocol, whose data are raw bytes behind the JSON that describes them: what
 * `service/api/v2` and `service/scoring/columns.py` do with most of them, without an object for each value.
 *
 * Plain is a request of one user, in the datatypes that the model announces, whose tensors are said what has to be said of them and
 * nothing else. The rest of the JSON is left to Python. Knows how tensors are described and laid out. Does not know errors.
 */

#include <string.h>

#include "cells.h"
#include "json.h"

/* What is said of a tensor: of so many rows, and if it is a sequence of so many steps in each. */
typedef struct {
    const Feature *feature;
    Py_ssize_t rows, steps, bytes;
} Tensor;

/* A whole number from 0 on. */
static bool take_size(const char **text, Py_ssize_t *size)
{
    Number number;
    if (!take_number(text, &number) || !number.is_integer || number.integer < 0) {
        return false;
    }
    *size = (Py_ssize_t)number.integer;
    return true;
}

/* [rows] or [rows, steps] */
static bool take_shape(const char **text, Tensor *tensor, int *axes)
{
    if (!take(text, '[') || !take_size(text, &tensor->rows)) {
        return false;
    }
    *axes = 1;
    tensor->steps = 1;
    if (take(text, ',')) {
        *axes = 2;
        if (!take_size(text, &tensor->steps)) {
            return false;
        }
    }
    return take(text, ']');
}

/* {"binary_data_size": bytes} */
static bool take_parameters(const char **text, Tensor *tensor)
{
    String name;
    return take(text, '{') && take_string(text, &name) && is(&name, "binary_data_size") && take(text, ':') &&
           take_size(text, &tensor->bytes) && take(text, '}');
}

static const Feature *feature_of(const Reader *reader, const String *name, bool *seen)
{
    int32_t number = row_of(reader->names, name);
    if (number == FREE || number >= reader->count || seen[number]) {
        return NULL;
    }
    seen[number] = true;
    return &reader->features[number];
}

/* An object that says what every tensor with raw bytes says, and nothing else, and it all is plain. */
static bool take_description(const char **text, const Reader *reader, bool *seen, Tensor *tensor)
{
    static const char *const DATATYPES[KINDS] = {[WORD] = "BYTES", [INTEGER] = "INT64", [NUMBER] = "FP32", [TEXT] = "BYTES"};
    enum { NAME = 1, DATATYPE = 2, SHAPE = 4, PARAMETERS = 8, ALL = 15 };
    String name = {0}, datatype = {0};
    int said = 0, axes = 0;
    if (!take(text, '{')) {
        return false;
    }
    do {
        String key;
        int field = 0;
        if (!take_string(text, &key) || !take(text, ':')) {
            return false;
        }
        if (is(&key, "name") && take_string(text, &name)) {
            field = NAME;
        } else if (is(&key, "datatype") && take_string(text, &datatype)) {
            field = DATATYPE;
        } else if (is(&key, "shape") && take_shape(text, tensor, &axes)) {
            field = SHAPE;
        } else if (is(&key, "parameters") && take_parameters(text, tensor)) {
            field = PARAMETERS;
        }
        if (field == 0 || (said & field) != 0) {
            return false;
        }
        said |= field;
    } while (take(text, ','));
    if (said != ALL || !take(text, '}')) {
        return false;
    }
    tensor->feature = feature_of(reader, &name, seen);
    return tensor->feature != NULL && is(&datatype, DATATYPES[tensor->feature->kind]) &&
           axes == 1 + tensor->feature->sequence && tensor->rows > 0;
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

/* The list of what describes the tensors whose data lie from `at` to `end`, one behind the other. */
static bool take_tensors(const char **text, Request *request, bool *seen, const char *at, const char *end, Py_ssize_t most)
{
    if (!take(text, '[')) {
        return false;
    }
    do {
        Tensor tensor;
        if (!take_description(text, request->reader, seen, &tensor) || tensor.bytes > end - at) {
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
    } while (take(text, ','));
    return at == end && take(text, ']');
}

/* The fields of the object: the list of inputs, which is taken and whose place is told, and others, whatever they are: Python reads
 * them, and sees to the end of the object. */
static bool take_fields(const char *text, Request *request, bool *seen, const char *data, const char *end, Py_ssize_t most,
                        Inputs *inputs)
{
    if (!take(&text, '{')) {
        return false;
    }
    do {
        String field;
        if (!take_string(&text, &field) || !take(&text, ':')) {
            return false;
        }
        if (!is(&field, "inputs")) {
            if (!skip_value(&text)) {
                return false;
            }
            skip_space(&text);
            continue;
        }
        if (inputs->from != NULL) {
            return false;
        }
        inputs->from = text;
        if (!take_tensors(&text, request, seen, data, end, most)) {
            return false;
        }
        inputs->to = text;
    } while (take(&text, ','));
    return text < data;
}

Request *read_tensors(Reader *reader, const char *text, const char *data, const char *end, Py_ssize_t most, Inputs *inputs)
{
    bool *seen;
    Request *request = begin(reader, &seen);
    bool plain = request != NULL && take_fields(text, request, seen, data, end, most, inputs);
    return finish(request, seen, plain);
}
