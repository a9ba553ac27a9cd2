/* Making a vocabulary. Knows dictionaries. Does not know what looks words up. */

#include "words.h"

enum { MOST_PROBES = 256 }; /* words made to collide are not waited for */

static bool add_word(Table *table, const char *word, Py_ssize_t length, size_t start, int32_t row)
{
    String string = {.bytes = word, .length = length};
    look_at(&string);
    uint32_t at = string.hash & table->mask, probes = 0;
    while (table->slots[at].row != FREE && probes++ < MOST_PROBES) {
        at = (at + 1) & table->mask;
    }
    if (table->slots[at].row != FREE) {
        PyErr_SetString(PyExc_ValueError, "too many words with one hash");
        return false;
    }
    memcpy(table->words + start, word, (size_t)length);
    table->slots[at] = (Slot){string.hash, (uint32_t)start, (uint32_t)length, row};
    return true;
}

/* The bytes of a word; not kept within the word, which for those beyond ASCII would hold them as long as it lives. */
static PyObject *bytes_of(PyObject *word)
{
    if (!PyUnicode_CheckExact(word)) {
        PyErr_SetString(PyExc_TypeError, "words must be strings");
        return NULL;
    }
    return PyUnicode_AsUTF8String(word);
}

static bool fill_table(Table *table, PyObject *words)
{
    Py_ssize_t at = 0, size = 0, count = PyDict_GET_SIZE(words);
    PyObject *word, *number;
    while (PyDict_Next(words, &at, &word, &number)) {
        PyObject *bytes = bytes_of(word);
        if (bytes == NULL) {
            return false;
        }
        size += PyBytes_GET_SIZE(bytes);
        Py_DECREF(bytes);
    }
    if (count >= 1 << 30 || size > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many words");
        return false;
    }
    table->mask = 7;
    while (table->mask < 2 * (uint32_t)count) {
        table->mask = 2 * table->mask + 1;
    }
    table->words = PyMem_Malloc(size);
    table->slots = PyMem_Malloc(((size_t)table->mask + 1) * sizeof(Slot));
    if (table->words == NULL || table->slots == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (uint32_t i = 0; i <= table->mask; i++) {
        table->slots[i].row = FREE;
    }
    size_t start = 0;
    for (at = 0; PyDict_Next(words, &at, &word, &number);) {
        long row = PyLong_AsLong(number);
        if (row < 0 || row > INT32_MAX) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "rows must be numbers from 0 on that fit in 31 bits");
            }
            return false;
        }
        PyObject *bytes = bytes_of(word);
        if (bytes == NULL) {
            return false;
        }
        bool added = add_word(table, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), start, (int32_t)row);
        start += PyBytes_GET_SIZE(bytes);
        Py_DECREF(bytes);
        if (!added) {
            return false;
        }
    }
    return true;
}

static PyObject *new_table(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(named))
{
    PyObject *words;
    if (!PyArg_ParseTuple(args, "O!:Table", &PyDict_Type, &words)) {
        return NULL;
    }
    Table *table = (Table *)type->tp_alloc(type, 0);
    if (table != NULL && !fill_table(table, words)) {
        Py_CLEAR(table);
    }
    return (PyObject *)table;
}

static void free_table(Table *table)
{
    PyMem_Free(table->slots);
    PyMem_Free(table->words);
    Py_TYPE(table)->tp_free(table);
}

PyTypeObject TableType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "service.scoring._request.Table",
    .tp_doc = "Table(words)\n\nThe row of each word, to be found by its bytes. Raises: ValueError.",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = new_table,
    .tp_dealloc = (destructor)free_table,
};
