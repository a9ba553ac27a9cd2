/* The fields of a message of protocol buffers: what `service/scoring/protobuf.py` does with bytes that are one, many times as fast.
 *
 * Says no where they are none, or are unusual; Python then reads them in its own way and says what is wrong, if anything is. Knows tags
 * and lengths. Does not know any message.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

enum { VARINT = 0, EIGHT = 1, BYTES = 2, FOUR = 5 };
enum { SHORT = 9, LONGEST = 10 }; /* bytes of a number below 2^63, and of any */

/* A number of at most 63 bits that ends before `stop`. */
static inline bool take_number(const unsigned char *data, Py_ssize_t stop, Py_ssize_t *at, uint64_t *number)
{
    *number = 0;
    for (int i = 0; i < SHORT && *at < stop; i++) {
        unsigned char byte = data[(*at)++];
        *number |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static inline bool skip_number(const unsigned char *data, Py_ssize_t stop, Py_ssize_t *at)
{
    for (int i = 0; i < LONGEST && *at < stop; i++) {
        if (data[(*at)++] < 0x80) {
            return true;
        }
    }
    return false;
}

/* From the tag to behind the content; where the content begins. */
static inline bool take_field(const unsigned char *data, Py_ssize_t stop, Py_ssize_t *at, uint64_t *tag, Py_ssize_t *content)
{
    uint64_t size = 0;
    if (!take_number(data, stop, at, tag)) {
        return false;
    }
    *content = *at;
    switch (*tag & 7) {
    case VARINT:
        return skip_number(data, stop, at);
    case BYTES:
        if (!take_number(data, stop, at, &size)) {
            return false;
        }
        *content = *at;
        break;
    case EIGHT:
        size = 8;
        break;
    case FOUR:
        size = 4;
        break;
    default:
        return false;
    }
    if (size > (uint64_t)(stop - *at)) {
        return false;
    }
    *at += (Py_ssize_t)size;
    return true;
}

/* kind(number, wire, begin, start, stop), without calling it: a tuple has nothing else to do when it is made. */
static PyObject *made(PyTypeObject *kind, uint64_t tag, Py_ssize_t begin, Py_ssize_t start, Py_ssize_t stop)
{
    PyObject *field = kind->tp_alloc(kind, 5);
    if (field == NULL) {
        return NULL;
    }
    PyObject *values[] = {PyLong_FromUnsignedLongLong(tag >> 3), PyLong_FromLong((long)(tag & 7)), PyLong_FromSsize_t(begin),
                          PyLong_FromSsize_t(start), PyLong_FromSsize_t(stop)};
    for (Py_ssize_t i = 0; i < 5; i++) {
        PyTuple_SET_ITEM(field, i, values[i]);
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(field);
    }
    return field;
}

PyDoc_STRVAR(fields_doc, "fields(kind, data, start, stop, wanted, most, found) -> int\n\n"
"Append the fields of the message from `start` to `stop` to a list, those whose bit in `wanted` is set (-1: all): at most so many are\n"
"looked at. How far it got, or -1 where the bytes are no message. `kind` is a tuple of five with names.");

static PyObject *fields(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *kind, *found;
    Py_buffer data;
    Py_ssize_t at, stop, most;
    long long wanted;
    if (!PyArg_ParseTuple(args, "O!y*nnLnO!:fields", &PyType_Type, &kind, &data, &at, &stop, &wanted, &most, &PyList_Type, &found)) {
        return NULL;
    }
    PyObject *done = NULL;
    if (!PyType_IsSubtype((PyTypeObject *)kind, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "a kind of tuple is expected");
        goto end;
    }
    bool plain = at >= 0 && stop <= data.len;
    for (Py_ssize_t i = 0; plain && i < most && at < stop; i++) {
        Py_ssize_t begin = at, content;
        uint64_t tag;
        plain = take_field(data.buf, stop, &at, &tag, &content);
        if (!plain || (wanted != -1 && (tag >> 3 > 62 || (wanted >> (tag >> 3) & 1) == 0))) {
            continue;
        }
        PyObject *field = made((PyTypeObject *)kind, tag, begin, content, at);
        if (field == NULL || PyList_Append(found, field) < 0) {
            Py_XDECREF(field);
            goto end;
        }
        Py_DECREF(field);
    }
    done = PyLong_FromSsize_t(plain ? at : -1);
end:
    PyBuffer_Release(&data);
    return done;
}

static PyMethodDef methods[] = {
    {"fields", fields, METH_VARARGS, fields_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_fields", .m_doc = "See csrc/fields.c.", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__fields(void)
{
    return PyModuleDef_Init(&definition);
}
