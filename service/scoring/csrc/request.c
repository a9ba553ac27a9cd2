/* The module `service.scoring._request`. Knows Python's types. Does not know what is in a request. */

#include "request.h"
#include "json.h"

#include <stddef.h>
#include <structmember.h>

/* --------------------------------------------------------------------------------------------------------- request */

static void free_cells(Cells *cells)
{
    PyMem_Free(cells->wide);
    PyMem_Free(cells->narrow);
    Py_XDECREF(cells->texts);
}

static void free_request(Request *request)
{
    for (Py_ssize_t i = 0; request->sequences != NULL && i < request->reader->sequences; i++) {
        free_cells(&request->sequences[i].members);
        PyMem_Free(request->sequences[i].lengths);
    }
    PyMem_Free(request->sequences);
    free_cells(&request->sides[USER]);
    free_cells(&request->sides[ITEM]);
    Py_XDECREF(request->reader);
    Py_TYPE(request)->tp_free(request);
}

static PyMemberDef request_members[] = {
    {"count", T_PYSSIZET, offsetof(Request, count), READONLY, "how many candidates there are"},
    {"order", T_PYSSIZET, offsetof(Request, order), READONLY, "the number of the output to sort by, or -1"},
    {"top", T_PYSSIZET, offsetof(Request, top), READONLY, "how many are asked for, or 0"},
    {NULL},
};

PyTypeObject RequestType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "service.scoring._request.Request",
    .tp_doc = "A plain request, as `Reader.read` answers it.",
    .tp_basicsize = sizeof(Request),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)free_request,
    .tp_members = request_members,
};

/* ---------------------------------------------------------------------------------------------------------- reader */

static PyObject *found_or_none(Request *request)
{
    if (request == NULL) {
        PyErr_Clear(); /* whatever it was, the other way meets it again, and says what it is */
        Py_RETURN_NONE;
    }
    return (PyObject *)request;
}

PyDoc_STRVAR(read_doc, "read(body, most) -> Request | None\n\n"
"The plain request of at most `most` candidates that a body of bytes is; None for any other body.");

static PyObject *read_body(Reader *reader, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a body in bytes and a number are expected");
        return NULL;
    }
    Py_ssize_t most = PyLong_AsSsize_t(args[1]);
    if (most == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const char *text = PyBytes_AS_STRING(args[0]);
    Request *request = read_request(reader, text, text + PyBytes_GET_SIZE(args[0]), most);
    return found_or_none(request);
}

PyDoc_STRVAR(join_doc, "join(requests, most) -> tuple | None\n\n"
"Of a list of requests, whose users and candidates follow each other: for each side the int64 [C, N], the float32 [C, N] and the\n"
"strings [C * N] of its single features; and each sequence [N, steps], with the number of its steps; and the number of its request for each candidate, int64 [N]. None where a\n"
"sequence has more than `most` cells.");

static PyObject *join(Reader *reader, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyList_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a list of requests and a number are expected");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(args[0]), most = PyLong_AsSsize_t(args[1]);
    if (most == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *const *requests = PySequence_Fast_ITEMS(args[0]);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!Py_IS_TYPE(requests[i], &RequestType) || ((const Request *)requests[i])->reader != reader) {
            PyErr_SetString(PyExc_TypeError, "requests that this reader has read are expected");
            return NULL;
        }
    }
    return join_requests(reader, requests, count, most);
}

static bool set_feature(Reader *reader, Feature *feature, PyObject *given)
{
    int sequence, refuses;
    long long unknown, missing, fed;
    PyObject *table;
    if (!PyTuple_Check(given) ||
        !PyArg_ParseTuple(given, "iippOLLLnn", &feature->side, &feature->kind, &sequence, &refuses, &table, &unknown, &missing,
                          &fed, &feature->main, &feature->most)) {
        return false;
    }
    bool good = feature->side >= 0 && feature->side < SIDES && feature->kind >= 0 && feature->kind < KINDS;
    if (!good || (feature->kind == WORD) != Py_IS_TYPE(table, &TableType)) {
        PyErr_SetString(PyExc_ValueError, "a feature has a side, a kind, and a table where it is of words");
        return false;
    }
    feature->sequence = sequence;
    feature->refuses = refuses;
    feature->unknown = unknown;
    feature->missing = missing;
    feature->fed = fed;
    feature->table = feature->kind == WORD ? (Table *)Py_NewRef(table) : NULL;
    Py_ssize_t *counts = feature->kind == NUMBER ? reader->narrow : feature->kind == TEXT ? reader->texts : reader->wide;
    feature->place = sequence ? reader->sequences++ : counts[feature->side]++;
    return true;
}

static bool check_sequences(const Reader *reader)
{
    for (Py_ssize_t i = 0; i < reader->count; i++) {
        const Feature *feature = &reader->features[i];
        bool known = feature->main >= 0 && feature->main < reader->count;
        if (feature->sequence &&
            (!known || !reader->features[feature->main].sequence || reader->features[feature->main].side != feature->side)) {
            PyErr_SetString(PyExc_ValueError, "a sequence runs along a sequence of its side");
            return false;
        }
    }
    return true;
}

static PyObject *new_reader(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(named))
{
    PyObject *names, *features, *outputs;
    Py_ssize_t max_bytes;
    if (!PyArg_ParseTuple(args, "O!O!O!n:Reader", &TableType, &names, &PyTuple_Type, &features, &TableType, &outputs,
                          &max_bytes)) {
        return NULL;
    }
    Reader *reader = (Reader *)type->tp_alloc(type, 0);
    if (reader == NULL) {
        return NULL;
    }
    reader->names = (Table *)Py_NewRef(names);
    reader->outputs = (Table *)Py_NewRef(outputs);
    reader->max_bytes = max_bytes;
    reader->features = PyMem_Calloc((size_t)PyTuple_GET_SIZE(features) + 1, sizeof(Feature));
    if (reader->features == NULL) {
        Py_DECREF(reader);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(features); i++) {
        reader->count++;
        if (!set_feature(reader, &reader->features[i], PyTuple_GET_ITEM(features, i))) {
            Py_DECREF(reader);
            return NULL;
        }
    }
    if (!check_sequences(reader)) {
        Py_CLEAR(reader);
    }
    return (PyObject *)reader;
}

static void free_reader(Reader *reader)
{
    for (Py_ssize_t i = 0; i < reader->count; i++) {
        Py_XDECREF(reader->features[i].table);
    }
    PyMem_Free(reader->features);
    Py_XDECREF(reader->names);
    Py_XDECREF(reader->outputs);
    Py_TYPE(reader)->tp_free(reader);
}

PyDoc_STRVAR(tensors_doc, "tensors(body, length, most) -> tuple[Request, bytes] | None\n\n"
"The same for tensors of the Open Inference Protocol, whose data lie in a row behind `length` bytes of JSON that describes them; and the\n"
"JSON without them, an empty list in their place.");

/* The JSON before and behind the list of inputs, with an empty list between. */
static PyObject *without(const Inputs *inputs, const char *text, const char *data)
{
    Py_ssize_t before = inputs->from - text, behind = data - inputs->to;
    PyObject *rest = PyBytes_FromStringAndSize(NULL, before + 2 + behind);
    if (rest != NULL) {
        char *at = PyBytes_AS_STRING(rest);
        memcpy(at, text, (size_t)before);
        memcpy(at + before, "[]", 2);
        memcpy(at + before + 2, inputs->to, (size_t)behind);
    }
    return rest;
}

static PyObject *tensors(Reader *reader, PyObject *const *args, Py_ssize_t given)
{
    if (given != 3 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a body in bytes and two numbers are expected");
        return NULL;
    }
    Py_ssize_t length = PyLong_AsSsize_t(args[1]), most = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (length < 0 || length > PyBytes_GET_SIZE(args[0])) {
        PyErr_SetString(PyExc_ValueError, "the length of the JSON is one within the body");
        return NULL;
    }
    const char *text = PyBytes_AS_STRING(args[0]), *data = text + length;
    Inputs inputs = {NULL, NULL};
    Request *request = read_tensors(reader, text, data, text + PyBytes_GET_SIZE(args[0]), most, &inputs);
    PyObject *rest = request == NULL ? NULL : without(&inputs, text, data);
    if (rest == NULL) {
        Py_CLEAR(request);
        return found_or_none(NULL);
    }
    return Py_BuildValue("NN", request, rest);
}

static PyMethodDef reader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))read_body, METH_FASTCALL, read_doc},
    {"tensors", (PyCFunction)(void (*)(void))tensors, METH_FASTCALL, tensors_doc},
    {"join", (PyCFunction)(void (*)(void))join, METH_FASTCALL, join_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ReaderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "service.scoring._request.Reader",
    .tp_doc = "Reader(names, features, outputs, max_bytes)\n\nSee _request.pyi. Raises: ValueError.",
    .tp_basicsize = sizeof(Reader),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = new_reader,
    .tp_dealloc = (destructor)free_reader,
    .tp_methods = reader_methods,
};

PyDoc_STRVAR(deeper_doc, "deeper(body, levels) -> bool\n\nWhether bytes that are valid JSON are nested deeper than that.");

static PyObject *deeper(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "JSON in bytes and a number are expected");
        return NULL;
    }
    Py_ssize_t levels = PyLong_AsSsize_t(args[1]);
    if (levels == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const char *body = PyBytes_AS_STRING(args[0]);
    return PyBool_FromLong(is_deeper(body, body + PyBytes_GET_SIZE(args[0]), levels));
}

static PyMethodDef functions[] = {
    {"deeper", (PyCFunction)(void (*)(void))deeper, METH_FASTCALL, deeper_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_request", .m_doc = "See csrc/reading.c.", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__request(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddType(module, &TableType) < 0 || PyModule_AddType(module, &RequestType) < 0 ||
                           PyModule_AddType(module, &ReaderType) < 0)) {
        Py_CLEAR(module);
    }
    return module;
}
