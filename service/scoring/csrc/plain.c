/* Lists of plain values into arrays: what `service/scoring/values.py` does with most columns, many times as fast; and
 * lists of strings out of the raw bytes that the Open Inference Protocol sends them as; lists beside those before them; and
 * whether scores are probabilities.
 *
 * A value is plain where nothing has to be decided about it. Each function of lists fills an array [C, N] from C columns, each a list of
 * N values or None for one that is missing throughout, and says whether all was plain; where it was not, the array is to be
 * thrown away, and `values.py` reads the columns in its own way and finds what is wrong, if anything is. Knows Python's own
 * types and the buffer of an array. Does not know errors.
 *
 * Nothing here runs Python code while it walks a list: lookups are of exact strings and None only, so that no list can
 * change under it.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* What one value becomes, in the cell that is its own: false where it is not plain. */
typedef struct {
    int64_t missing, unknown;
    Py_ssize_t max_bytes;
    PyObject *table;
} How;

typedef bool (*Read)(PyObject *value, void *cell, const How *how);

static bool number(PyObject *value, void *cell, const How *Py_UNUSED(how))
{
    double found;
    if (PyFloat_CheckExact(value)) {
        found = PyFloat_AS_DOUBLE(value);
    } else if (value == Py_None) {
        *(float *)cell = NAN;
        return true;
    } else if (PyLong_CheckExact(value)) {
        found = PyLong_AsDouble(value);
        if (found == -1.0 && PyErr_Occurred()) {
            PyErr_Clear(); /* does not even fit in 64 bits */
            return false;
        }
    } else {
        return false;
    }
    *(float *)cell = (float)found;
    return isfinite(*(float *)cell);
}

static bool integer(PyObject *value, void *cell, const How *how)
{
    int overflow = 0;
    if (value == Py_None) {
        *(int64_t *)cell = how->missing;
        return true;
    }
    if (!PyLong_CheckExact(value)) {
        return false;
    }
    *(int64_t *)cell = PyLong_AsLongLongAndOverflow(value, &overflow);
    return !overflow;
}

static bool row(PyObject *value, void *cell, const How *how)
{
    bool text = PyUnicode_CheckExact(value);
    if (!text && value != Py_None) {
        return false;
    }
    PyObject *found = PyDict_GetItemWithError(how->table, value);
    if (found != NULL) {
        *(int64_t *)cell = PyLong_AsLongLong(found);
        return true;
    }
    *(int64_t *)cell = how->unknown;
    return text && PyUnicode_IS_ASCII(value) && PyUnicode_GET_LENGTH(value) <= how->max_bytes;
}

/* Always inlined, so that each caller has a loop around its own `read`. */
static inline __attribute__((always_inline)) bool
fill(PyObject *column, char *cells, Py_ssize_t rows, Py_ssize_t size, Read read, const How *how)
{
    bool absent = column == Py_None;
    if (!absent && (!PyList_CheckExact(column) || PyList_GET_SIZE(column) != rows)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < rows; i++) {
        if (!read(absent ? column : PyList_GET_ITEM(column, i), cells + i * size, how)) {
            return false;
        }
    }
    return true;
}

/* The memory of an array [C, N] for C columns, and N; a negative number with an error set where it does not fit. */
static Py_ssize_t begin(PyObject *columns, PyObject *array, Py_ssize_t size, Py_buffer *buffer)
{
    if (!PyList_CheckExact(columns)) {
        PyErr_SetString(PyExc_TypeError, "the columns must be a list");
        return -1;
    }
    if (PyObject_GetBuffer(array, buffer, PyBUF_CONTIG) < 0) {
        return -1;
    }
    if (buffer->itemsize != size || buffer->ndim != 2 || buffer->shape[0] != PyList_GET_SIZE(columns)) {
        PyBuffer_Release(buffer);
        PyErr_SetString(PyExc_ValueError, "the array must have a row of cells of the right size for each column");
        return -1;
    }
    return buffer->shape[1];
}

static bool expect(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are expected, not %zd", wanted, given);
    }
    return given == wanted;
}

static inline __attribute__((always_inline)) PyObject *
fill_all(PyObject *columns, PyObject *array, Py_ssize_t size, Read read, const How *how)
{
    Py_buffer buffer;
    Py_ssize_t count = begin(columns, array, size, &buffer);
    if (count < 0) {
        return NULL;
    }
    bool plain = true;
    for (Py_ssize_t c = 0; plain && c < buffer.shape[0]; c++) {
        plain = fill(PyList_GET_ITEM(columns, c), (char *)buffer.buf + c * count * size, count, size, read, how);
    }
    PyBuffer_Release(&buffer);
    return PyBool_FromLong(plain);
}

PyDoc_STRVAR(numbers_doc, "numbers(columns, array) -> bool\n\n"
"int and float that fit in 32 bits, and None as NaN, into an array of float32 [C, N].");

static PyObject *numbers(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    return expect(given, 2) ? fill_all(args[0], args[1], sizeof(float), number, NULL) : NULL;
}

PyDoc_STRVAR(integers_doc, "integers(columns, array, missing) -> bool\n\n"
"int that fit in 64 bits, and None as `missing`, into an array of int64 [C, N].");

static PyObject *integers(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    How how = {0};
    if (!expect(given, 3)) {
        return NULL;
    }
    how.missing = PyLong_AsLongLong(args[2]);
    return PyErr_Occurred() ? NULL : fill_all(args[0], args[1], sizeof(int64_t), integer, &how);
}

PyDoc_STRVAR(rows_doc, "rows(columns, array, tables, unknowns, max_bytes) -> bool\n\n"
"str and None as what the column's dictionary has for them, into an array of int64 [C, N]; for other ASCII strings of at\n"
"most `max_bytes` bytes the column's number in `unknowns`. Both are tuples.");

static PyObject *rows(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    Py_buffer buffer;
    Py_ssize_t count;
    How how = {0};
    if (!expect(given, 5)) {
        return NULL;
    }
    how.max_bytes = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || (count = begin(args[0], args[1], sizeof(int64_t), &buffer)) < 0) {
        return NULL;
    }
    PyObject *tables = args[2], *unknowns = args[3];
    bool plain = PyTuple_CheckExact(tables) && PyTuple_CheckExact(unknowns) &&
                 PyTuple_GET_SIZE(tables) == buffer.shape[0] && PyTuple_GET_SIZE(unknowns) == buffer.shape[0];
    if (!plain) {
        PyErr_SetString(PyExc_ValueError, "there must be a table and an unknown for each column");
    }
    for (Py_ssize_t c = 0; plain && c < buffer.shape[0]; c++) {
        char *cells = (char *)buffer.buf + c * count * sizeof(int64_t);
        how.table = PyTuple_GET_ITEM(tables, c);
        how.unknown = PyLong_AsLongLong(PyTuple_GET_ITEM(unknowns, c));
        plain = fill(PyList_GET_ITEM(args[0], c), cells, count, sizeof(int64_t), row, &how);
    }
    PyBuffer_Release(&buffer);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(plain);
}

PyDoc_STRVAR(strings_doc, "strings(data, count) -> list | None\n\n"
"`count` strings of UTF-8, each behind four bytes of length, the lowest first. None where the data are not just those.");

static PyObject *strings(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    Py_buffer buffer;
    if (!expect(given, 2)) {
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    const unsigned char *at = buffer.buf;
    Py_ssize_t left = buffer.len;
    PyObject *found = NULL;
    if (count < 0 || count > left / 4 || (found = PyList_New(count)) == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t length = 0;
        if (left >= 4) {
            length = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        }
        PyObject *text = NULL;
        if (left < 4 || length > left - 4 || (text = PyUnicode_DecodeUTF8((const char *)at + 4, length, NULL)) == NULL) {
            Py_CLEAR(found);
            goto done;
        }
        PyList_SET_ITEM(found, i, text);
        at += 4 + (Py_ssize_t)length;
        left -= 4 + (Py_ssize_t)length;
    }
    if (left != 0) {
        Py_CLEAR(found);
    }
done:
    PyBuffer_Release(&buffer);
    if (found == NULL) {
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            return NULL;
        }
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return found;
}

PyDoc_STRVAR(unlike_before_doc, "unlike_before(values, starts, lengths, array) -> None\n\n"
"Whether the values of each row but the first, so many from a start on, are not those of the row before, byte by byte:\n"
"`starts` and `lengths` are int64 [B], the answers go into an array of bool [B - 1].");

static PyObject *unlike_before(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    Py_buffer values, starts, lengths, array;
    PyObject *done = NULL;
    if (!expect(given, 4) || PyObject_GetBuffer(args[0], &values, PyBUF_ND) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(args[1], &starts, PyBUF_ND) < 0) {
        goto no_starts;
    }
    if (PyObject_GetBuffer(args[2], &lengths, PyBUF_ND) < 0) {
        goto no_lengths;
    }
    if (PyObject_GetBuffer(args[3], &array, PyBUF_CONTIG) < 0) {
        goto no_array;
    }
    const int64_t *start = starts.buf, *length = lengths.buf;
    const char *bytes = values.buf;
    Py_ssize_t rows = starts.len / (Py_ssize_t)sizeof(int64_t), count = values.len / values.itemsize;
    bool good = starts.itemsize == sizeof(int64_t) && lengths.itemsize == sizeof(int64_t) && lengths.len == starts.len &&
                array.itemsize == 1 && array.len == (rows > 0 ? rows - 1 : 0);
    for (Py_ssize_t i = 0; good && i < rows; i++) {
        good = start[i] >= 0 && length[i] >= 0 && start[i] <= count && length[i] <= count - start[i];
    }
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "the rows must lie within the values, and there must be an answer for each but the first");
    }
    for (Py_ssize_t i = 1; good && i < rows; i++) {
        const char *here = bytes + start[i] * values.itemsize, *before = bytes + start[i - 1] * values.itemsize;
        ((char *)array.buf)[i - 1] =
            length[i] != length[i - 1] || memcmp(here, before, (size_t)(length[i] * values.itemsize)) != 0;
    }
    done = good ? Py_NewRef(Py_None) : NULL;
    PyBuffer_Release(&array);
no_array:
    PyBuffer_Release(&lengths);
no_lengths:
    PyBuffer_Release(&starts);
no_starts:
    PyBuffer_Release(&values);
    return done;
}

PyDoc_STRVAR(probabilities_doc, "probabilities(arrays) -> bool\n\n"
"Whether all numbers of a list of arrays of float32 lie between 0 and 1; NaN does not.");

static PyObject *probabilities(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    bool good = true;
    if (!expect(given, 1)) {
        return NULL;
    }
    if (!PyList_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "the arrays must be a list");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        Py_buffer buffer;
        if (PyObject_GetBuffer(PyList_GET_ITEM(args[0], i), &buffer, PyBUF_ND | PyBUF_FORMAT) < 0) {
            return NULL;
        }
        bool fits = strcmp(buffer.format, "f") == 0;
        const float *values = buffer.buf;
        for (Py_ssize_t at = 0; fits && at < buffer.len / (Py_ssize_t)sizeof(float); at++) {
            good &= values[at] >= 0 && values[at] <= 1;
        }
        PyBuffer_Release(&buffer);
        if (!fits) {
            PyErr_SetString(PyExc_ValueError, "the arrays must be of float32");
            return NULL;
        }
    }
    return PyBool_FromLong(good);
}

static PyMethodDef methods[] = {
    {"numbers", (PyCFunction)(void (*)(void))numbers, METH_FASTCALL, numbers_doc},
    {"integers", (PyCFunction)(void (*)(void))integers, METH_FASTCALL, integers_doc},
    {"rows", (PyCFunction)(void (*)(void))rows, METH_FASTCALL, rows_doc},
    {"strings", (PyCFunction)(void (*)(void))strings, METH_FASTCALL, strings_doc},
    {"unlike_before", (PyCFunction)(void (*)(void))unlike_before, METH_FASTCALL, unlike_before_doc},
    {"probabilities", (PyCFunction)(void (*)(void))probabilities, METH_FASTCALL, probabilities_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_plain", .m_doc = "See csrc/plain.c.", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__plain(void)
{
    return PyModuleDef_Init(&definition);
}
