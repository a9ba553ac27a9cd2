/* A request as it is written, {"user": {name: value}, "candidates": {name: [values]}}, straight to the arrays that the graph takes: what
 * orjson, `service/api/wire.py` and `service/scoring/columns.py` do with most requests, without an object for each value.
 *
 * A request is plain where nothing has to be decided about it. `Reader.read` answers None for any other, whether it is at fault
 * or only unusual, and it is then read in their way. What is taken is JSON, and means what it means there. Strings with escapes are
 * not plain, nor is a name twice in an object. Strings beyond ASCII are plain where they are words of a vocabulary.
 *
 * Knows the one shape of a request, and kinds of features. Does not know errors.
 */

#include <math.h>

#include "cells.h"
#include "json.h"

/* The value of a feature at index `i`; null is one that is missing. */
static inline bool take_value(const char **text, const Reader *reader, const Feature *feature, const Cells *cells, Py_ssize_t i)
{
    String string;
    Number number;
    if (**text == 'n') {
        return take_null(text) && put_missing(feature, cells, i);
    }
    if (feature->kind == NUMBER) {
        if (!take_number(text, &number)) {
            return false;
        }
        cells->narrow[i] = number.real;
        return isfinite(number.real);
    }
    if (feature->kind == INTEGER) {
        if (!take_number(text, &number) || !number.is_integer) {
            return false;
        }
        cells->wide[i] = number.integer;
        return true;
    }
    return take_string(text, &string) && put_string(reader, feature, cells, i, &string);
}

static bool take_single(const char **text, Request *request, const Feature *feature)
{
    Py_ssize_t first, rows = rows_of(request, feature->side);
    Cells cells = column_of(request, feature, &first);
    if (feature->side == USER) {
        return take_value(text, request->reader, feature, &cells, first);
    }
    if (!take(text, '[')) {
        return false;
    }
    for (Py_ssize_t i = 0; i < rows; i++) {
        if ((i > 0 && !take(text, ',')) || !take_value(text, request->reader, feature, &cells, first + i)) {
            return false;
        }
    }
    return take(text, ']');
}

/* The members of one row, from index `*count` on. */
static bool take_row(const char **text, const Reader *reader, const Feature *feature, const Cells *cells, Py_ssize_t *count)
{
    if (**text == 'n') {
        return take_null(text);
    }
    if (!take(text, '[')) {
        return false;
    }
    if (**text == ']') {
        return take(text, ']');
    }
    do {
        if (!take_value(text, reader, feature, cells, (*count)++)) {
            return false;
        }
    } while (take(text, ','));
    return take(text, ']');
}

static bool take_sequence(const char **text, Request *request, const Feature *feature)
{
    Py_ssize_t values, most = 0, count = 0, rows = rows_of(request, feature->side);
    if (**text == '[' && !count_values(*text, &values, &most)) {
        return false;
    }
    if (!make_steps(request, feature, most)) {
        return false;
    }
    Steps *steps = &request->sequences[feature->place];
    if (feature->side == ITEM && !take(text, '[')) {
        return false;
    }
    for (Py_ssize_t i = 0; i < rows; i++) {
        Py_ssize_t before = count;
        if ((i > 0 && !take(text, ',')) || !take_row(text, request->reader, feature, &steps->members, &count)) {
            return false;
        }
        steps->lengths[i] = count - before;
    }
    return feature->side == USER || take(text, ']');
}

/* --------------------------------------------------------------------------------------------------------- request */

/* The name of a feature of this side that has not been seen, and the colon behind it; NULL for anything else. */
static const Feature *take_name(const char **text, const Reader *reader, int side, bool *seen)
{
    String name;
    if (!take_string(text, &name)) {
        return NULL;
    }
    int32_t number = row_of(reader->names, &name);
    if (number == FREE || number >= reader->count || reader->features[number].side != side || seen[number]) {
        return NULL;
    }
    seen[number] = true;
    return take(text, ':') ? &reader->features[number] : NULL;
}

/* The object of a side. The first column says how many candidates there are. */
static bool take_side(const char **text, Request *request, int side, bool *seen, Py_ssize_t most)
{
    if (side == USER && **text == 'n') {
        return take_null(text);
    }
    if (!take(text, '{')) {
        return false;
    }
    if (side == USER && **text == '}') {
        return take(text, '}');
    }
    do {
        const Feature *feature = take_name(text, request->reader, side, seen);
        if (feature == NULL) {
            return false;
        }
        if (side == ITEM && request->count == 0) {
            Py_ssize_t members;
            if (**text != '[' || !count_values(*text, &request->count, &members) || request->count > most ||
                !make_side(request, ITEM)) {
                return false;
            }
        }
        if (!(feature->sequence ? take_sequence : take_single)(text, request, feature)) {
            return false;
        }
    } while (take(text, ','));
    return take(text, '}');
}

static bool take_order(const char **text, Request *request)
{
    String output;
    if (!take_string(text, &output)) {
        return false;
    }
    request->order = row_of(request->reader->outputs, &output);
    return request->order != FREE;
}

static bool take_top(const char **text, Request *request)
{
    Number number;
    if (!take_number(text, &number) || !number.is_integer || number.integer < 1) {
        return false;
    }
    request->top = (Py_ssize_t)number.integer;
    return true;
}

/* All of it, up to the brace that closes it and the space behind. */
static bool take_request(const char **text, Request *request, bool *seen, Py_ssize_t most)
{
    bool user = false;
    if (!take(text, '{')) {
        return false;
    }
    do {
        String field;
        bool good = false;
        if (!take_string(text, &field) || !take(text, ':')) {
            return false;
        }
        if (is(&field, "candidates") && request->count == 0) {
            good = take_side(text, request, ITEM, seen, most);
        } else if (is(&field, "user") && !user) {
            good = user = take_side(text, request, USER, seen, most);
        } else if (is(&field, "order_by") && request->order == FREE) {
            good = take_order(text, request);
        } else if (is(&field, "top_k") && request->top == 0) {
            good = take_top(text, request);
        }
        if (!good) {
            return false;
        }
    } while (take(text, ','));
    return take(text, '}');
}

Request *read_request(Reader *reader, const char *text, const char *end, Py_ssize_t most)
{
    bool *seen;
    Request *request = begin(reader, &seen);
    bool plain = request != NULL && take_request(&text, request, seen, most) && text == end;
    return finish(request, seen, plain);
}
