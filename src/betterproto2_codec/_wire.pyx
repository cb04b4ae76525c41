# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=True
"""Decode and encode protobuf's binary format for dataclasses at C speed, for clean, common messages.

The bytes are untrusted. Only `_varint`, `_tag`, `_length` and `_fixed` read them, and each checks the end first.
Anything unusual falls back: unknown fields, other wire types, text that is not UTF-8, invalid values, deep nesting.
`Schema.decode` and `Schema.encode` then return None, and the caller uses google.protobuf, which decides what is valid
and what the error says.

Lists, dicts and attributes can change while they are encoded, since encoding what is inside can run other code. So each
access is checked again, and objects in use are kept alive by a reference.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport (
    PyDateTime_CheckExact,
    PyDelta_CheckExact,
    datetime_day,
    datetime_hour,
    datetime_microsecond,
    datetime_minute,
    datetime_month,
    datetime_new,
    datetime_second,
    datetime_tzinfo,
    datetime_year,
    get_utc,
    import_datetime,
    timedelta_days,
    timedelta_microseconds,
    timedelta_new,
    timedelta_seconds,
)
from cpython.dict cimport PyDict_Items
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsDouble, PyLong_AsLongLong, PyLong_AsUnsignedLongLong, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.math cimport isfinite, isinf, signbit, trunc
from libc.stdint cimport INT32_MAX, INT32_MIN, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from datetime import datetime, timedelta

from betterproto2_codec.exact_datetime import ExactDatetime, ExactTimedelta


cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object tp_new(PyTypeObject *cls, PyObject *arguments, PyObject *named)
    PyTypeObject PyBaseObject_Type
    object PyObject_Vectorcall(object function, PyObject **arguments, size_t count, PyObject *names)
    PyObject *Py_NewRef(PyObject *value)
    int PyObject_GenericSetAttr(object target, object name, object value) except -1
    object PyObject_CallOneArg(object function, object argument)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_New(Py_ssize_t size, uint32_t largest)
    void *PyUnicode_DATA(object text)
    PyObject *PyList_GET_ITEM(object elements, Py_ssize_t index)
    Py_ssize_t PyList_GET_SIZE(object elements)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    /* An instance and its attributes take several cache lines; a text starts in the first. */
    #define wire_line(object, offset) __builtin_prefetch((const void *)((uintptr_t)(object) + (offset)))
    #define wire_prefetch(object) (wire_line(object, 0), wire_line(object, 64), wire_line(object, 128))
    #else
    #define wire_prefetch(object) ((void)(object))
    #endif
    """
    void wire_prefetch(PyObject *value) noexcept


# Scalars have the numbers of google.protobuf's FieldDescriptor.
cdef enum Kind:
    DOUBLE = 1
    FLOAT = 2
    INT64 = 3
    UINT64 = 4
    INT32 = 5
    FIXED64 = 6
    FIXED32 = 7
    BOOL = 8
    STRING = 9
    MESSAGE = 11
    BYTES = 12
    UINT32 = 13
    ENUM = 14
    SFIXED32 = 15
    SFIXED64 = 16
    SINT32 = 17
    SINT64 = 18
    TIMESTAMP = 19
    DURATION = 20
    WRAPPER = 21
    MAP = 22
    UNFIT = 23
    PLAIN = 24  # a Struct, as a dict

cdef enum Wire:
    VARINT = 0
    BITS64 = 1
    LENGTH = 2
    BITS32 = 5
    NO_WIRE = 8  # not a wire type of any tag

cdef enum:
    FIELDS = 128  # maximum per message, since its values are on the stack
    COMMON = 32  # enum members below this number are looked up in a table
    GROUPS = 32
    DENSE = 256  # smaller field numbers are looked up in a table
    DEPTH = 90  # less than google.protobuf's limit, which decides near the maximum
    FIRST_ROOM = 1024  # bytes to encode before memory is allocated
    KEPT = 1 << 20  # maximum bytes of memory kept for the next message
    TEXTS = 512  # texts that are checked for repetition
    LONGEST = 4096  # their maximum bytes
    REPEATING = 4096  # minimum bytes of a message for that check
    TURN = 4096  # plain values between two chances for other threads to run

MAX_FIELDS = FIELDS
MAX_GROUPS = GROUPS

cdef int64_t MIN_TIMESTAMP = -62_135_596_800
cdef int64_t MAX_TIMESTAMP = 253_402_300_799
cdef int64_t MAX_DURATION = 315_576_000_000
cdef double EXACT = 9_007_199_254_740_992.0  # up to here every integer is exact as a double

import_datetime()
cdef object UTC = get_utc()
cdef object EXACT_DATETIME = ExactDatetime
cdef object EXACT_TIMEDELTA = ExactTimedelta
cdef object NEW_DATETIME = datetime.__new__
cdef object NEW_TIMEDELTA = timedelta.__new__
cdef tuple NOTHING = ()
cdef bytes EMPTY = b""
cdef list KEYS = [None] * 512


class _Unfit(Exception):
    """Fall back to google.protobuf: unusual, or invalid."""


cdef struct Spec:
    # Data needed per value. Its Field keeps the objects alive, and the schema its fields.
    int kind
    int wire
    uint32_t number
    uint32_t tag  # 0, which is not a valid tag, if there is no wire type
    uint32_t group
    bint repeated
    bint presence
    bint packed
    PyObject *default
    PyObject *schema
    PyObject *members
    PyObject *enum
    PyObject **common
    Spec *key
    Spec *inner


cdef struct Text:
    const uint8_t *start
    Py_ssize_t size
    PyObject *text


cdef class Field:
    """One field, or a map's key or value, or the wrapped value of a wrapper."""

    cdef Spec spec
    cdef tuple held
    cdef tuple members
    cdef PyObject *common[COMMON]

    def __cinit__(self):
        memset(&self.spec, 0, sizeof(Spec))

    def __init__(self, int number, int kind, *, bint repeated=False, bint presence=False, bint packed=False,
                 int group=-1, object default=None, Schema schema=None, object members=None, object enum=None,
                 Field key=None, Field inner=None):
        cdef Py_ssize_t index
        if self.held is not None:
            raise ValueError("a field is made once")
        if not 0 < number < 1 << 29 or group >= GROUPS:
            raise ValueError("no such field")
        if kind == MESSAGE and schema is None or kind == ENUM and (members is None or enum is None):
            raise ValueError("a message needs a schema, an enum its members")
        if kind == ENUM and not issubclass(enum, int):
            raise TypeError("the members of an enum are ints, which are read without running code of theirs")
        if kind in (MAP, WRAPPER) and inner is None or kind == MAP and (key is None or not repeated):
            raise ValueError("a map has keys and values, a wrapper a value")
        self.held = (default, schema, members, enum, key, inner)
        self.members = tuple([members.get(number) for number in range(COMMON)]) if kind == ENUM else ()
        for index in range(len(self.members)):
            self.common[index] = <PyObject *>self.members[index]
        self.spec.kind = kind
        self.spec.wire = _wire_of(kind)
        self.spec.number = <uint32_t>number
        self.spec.tag = 0 if self.spec.wire == NO_WIRE else <uint32_t>number << 3 | <uint32_t>self.spec.wire
        self.spec.group = 0 if group < 0 else <uint32_t>1 << group
        self.spec.repeated = repeated
        self.spec.presence = presence
        self.spec.packed = packed
        self.spec.default = <PyObject *>default
        self.spec.schema = <PyObject *>schema
        self.spec.members = <PyObject *>members
        self.spec.enum = <PyObject *>enum
        self.spec.common = self.common
        self.spec.key = NULL if key is None else &key.spec
        self.spec.inner = NULL if inner is None else &inner.spec


cdef int _wire_of(int kind):
    if kind in (DOUBLE, FIXED64, SFIXED64):
        return BITS64
    if kind in (FLOAT, FIXED32, SFIXED32):
        return BITS32
    if kind in (INT64, UINT64, INT32, BOOL, UINT32, ENUM, SINT32, SINT64):
        return VARINT
    return LENGTH if kind in (STRING, MESSAGE, BYTES, TIMESTAMP, DURATION, WRAPPER, MAP, PLAIN) else NO_WIRE


cdef class Schema:
    """One message class: its fields, a function that sets all attributes of an instance, and one that gets them."""

    cdef object cls
    cdef tuple fields
    cdef Py_ssize_t count
    cdef object fill
    cdef object read
    cdef short dense[DENSE]
    cdef Spec *specs[FIELDS]
    cdef PyObject *defaults[FIELDS]  # borrowed from the fields; NULL for lists and maps, which are created each time
    cdef uint8_t places[FIELDS + 1]  # positions of the attributes, the unknown fields last
    cdef int room  # capacity of an instance with these positions, or 0

    def __init__(self, cls):
        if not isinstance(cls, type):
            raise TypeError("a schema is of a class")
        self.cls = cls
        self.fields = ()
        self.count = 0
        memset(self.dense, 0xFF, sizeof(self.dense))
        memset(self.defaults, 0, sizeof(self.defaults))
        self.room = 0

    def define(self, tuple fields, object fill, object read):
        """Set the fields, ordered by number. Separate from creation, since schemas reference each other."""
        cdef Field field
        cdef int slot
        if len(fields) > FIELDS or self.fields:
            raise ValueError("too many fields, or defined already")
        for slot, field in enumerate(fields):
            if field.held is None:
                raise ValueError("a field that was not made")
            if field.spec.number < DENSE:
                self.dense[field.spec.number] = slot
            self.specs[slot] = &field.spec
            self.defaults[slot] = NULL if field.spec.repeated else field.spec.default
        self.fields = fields
        self.count = len(fields)
        self.fill = fill
        self.read = read
        _learn_places(self)

    def decode(self, data):
        """Decode an instance; None if google.protobuf has to do it."""
        cdef const uint8_t *start
        cdef Text[TEXTS] texts
        cdef Py_ssize_t size
        cdef Py_ssize_t index
        if not PyBytes_CheckExact(data) or PyBytes_GET_SIZE(data) > INT32_MAX:
            return None
        start, size = <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        try:
            if size < REPEATING:
                return _read_message(self, start, start + size, 0, NULL)
            memset(texts, 0, sizeof(texts))
            try:
                return _read_message(self, start, start + size, 0, texts)
            finally:
                for index in range(TEXTS):
                    Py_XDECREF(texts[index].text)
        except (_Unfit, UnicodeError):
            return None

    def encode(self, message):
        """Encode an instance; None if google.protobuf has to do it."""
        cdef uint8_t[FIRST_ROOM] room
        cdef Writer writer
        writer.start = room
        writer.at = writer.end = room + FIRST_ROOM
        writer.heap = NULL
        try:
            _write_message(&writer, self, message, 0)
            return _written(&writer)
        except (_Unfit, UnicodeError, OverflowError, AttributeError, IndexError):
            return None
        finally:
            _finish(&writer)


include "_wire_attributes.pxi"
include "_wire_read.pxi"
include "_wire_write.pxi"
include "_wire_plain.pxi"
