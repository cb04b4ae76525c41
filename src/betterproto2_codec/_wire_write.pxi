# Encoding runs backwards, from the last byte to the first, so a length is known when it has to be written.

cdef struct Writer:
    uint8_t *start
    uint8_t *at  # the first byte written so far
    uint8_t *end
    void *heap  # memory to free


# Memory of the last large message, reused for the next one: allocating it again costs as much as encoding.
cdef void *SPARE = NULL
cdef size_t SPARE_SIZE = 0


cdef bytes _written(Writer *writer):
    return PyBytes_FromStringAndSize(<char *>writer.at, writer.end - writer.at)


cdef void _finish(Writer *writer) noexcept:
    """Free memory, or keep up to `KEPT` bytes of it."""
    global SPARE, SPARE_SIZE
    cdef size_t size = writer.end - writer.start
    if writer.heap is not NULL and SPARE_SIZE < size <= KEPT:
        PyMem_Free(SPARE)
        SPARE, SPARE_SIZE = writer.heap, size
    else:
        PyMem_Free(writer.heap)
    writer.heap = NULL


cdef int _grow(Writer *writer, size_t needed) except -1:
    global SPARE, SPARE_SIZE
    cdef size_t used = writer.end - writer.at
    cdef size_t size = 2 * (<size_t>(writer.end - writer.start) + needed)
    cdef uint8_t *fresh
    if needed > INT32_MAX or used + needed > INT32_MAX:
        raise _Unfit
    if size <= SPARE_SIZE:
        # Encoders that run meanwhile find none, and allocate their own.
        fresh, size = <uint8_t *>SPARE, SPARE_SIZE
        SPARE, SPARE_SIZE = NULL, 0
    else:
        fresh = <uint8_t *>PyMem_Malloc(size)
        if fresh is NULL:
            raise MemoryError
    memcpy(fresh + size - used, writer.at, used)
    PyMem_Free(writer.heap)
    writer.heap = writer.start = fresh
    writer.end = fresh + size
    writer.at = writer.end - used
    return 0


cdef inline int _put(Writer *writer, const void *data, size_t size) except -1:
    if <size_t>(writer.at - writer.start) < size:
        _grow(writer, size)
    writer.at -= size
    memcpy(writer.at, data, size)
    return 0


cdef inline int _put_varint(Writer *writer, uint64_t value) except -1:
    if value < 0x80 and writer.at > writer.start:
        writer.at -= 1
        writer.at[0] = <uint8_t>value
        return 0
    if value < 0x4000 and writer.at - writer.start >= 2:
        writer.at -= 2
        writer.at[0] = <uint8_t>(value & 0x7F | 0x80)
        writer.at[1] = <uint8_t>(value >> 7)
        return 0
    return _put_long_varint(writer, value)


cdef int _put_long_varint(Writer *writer, uint64_t value) except -1:
    cdef uint8_t[10] data
    cdef int size = 0
    while value > 0x7F:
        data[size] = <uint8_t>(value & 0x7F | 0x80)
        value >>= 7
        size += 1
    data[size] = <uint8_t>value
    return _put(writer, data, size + 1)


cdef int _put_length(Writer *writer, size_t written) except -1:
    """Write the length of everything written since there were `written` bytes."""
    return _put_varint(writer, <size_t>(writer.end - writer.at) - written)


cdef inline bint _runs_nothing(Spec *spec) noexcept:
    """Return whether encoding such a value runs no other code, which could free the value."""
    return spec.wire != LENGTH or spec.kind == STRING or spec.kind == BYTES


cdef int _write_message(Writer *writer, Schema schema, object message, int depth) except -1:
    cdef PyObject **values
    cdef PyObject *value
    cdef object held
    cdef Spec *spec
    cdef uint32_t groups = 0
    cdef Py_ssize_t index
    cdef size_t before = writer.end - writer.at
    if depth > DEPTH or type(message) is not schema.cls:
        raise _Unfit
    values = _attributes(schema, message)
    # The last one is the unknown fields.
    if values is NULL or values[schema.places[schema.count]] != <PyObject *>EMPTY:
        return _write_by_reading(writer, schema, message, depth)
    index = schema.count
    while index > 0:
        index -= 1
        value = values[schema.places[index]]
        if index >= 4:
            wire_prefetch(values[schema.places[index - 4]])
        if value is NULL:
            # The attribute was deleted: use the class's.
            writer.at = writer.end - before
            return _write_by_reading(writer, schema, message, depth)
        if value == schema.defaults[index]:
            continue  # None, or the default object itself: most fields of most messages
        spec = schema.specs[index]
        if not spec.repeated and _runs_nothing(spec):
            _write_field(writer, spec, <object>value, depth, &groups)
            continue
        held = <object>value
        _write_field(writer, spec, held, depth, &groups)
        values = _attributes(schema, message)
        if values is NULL:
            raise _Unfit
    return 0


cdef int _write_by_reading(Writer *writer, Schema schema, object message, int depth) except -1:
    """Encode a message whose attributes are read through `read`."""
    cdef tuple values = PyObject_CallOneArg(schema.read, message)
    cdef uint32_t groups = 0
    cdef Py_ssize_t index = schema.count
    cdef object value = values[index]
    if not PyBytes_CheckExact(value) or PyBytes_GET_SIZE(value):
        raise _Unfit
    while index > 0:
        index -= 1
        value = values[index]
        if <PyObject *>value != schema.defaults[index]:
            _write_field(writer, schema.specs[index], value, depth, &groups)
    return 0


cdef inline int _write_field(Writer *writer, Spec *spec, object value, int depth, uint32_t *groups) except -1:
    if spec.repeated:
        if spec.kind == MAP:
            return _write_map(writer, spec, value, depth)
        return _write_list(writer, spec, value, depth)
    if spec.presence:
        if groups[0] & spec.group:
            raise _Unfit
        groups[0] |= spec.group
        _write_value(writer, spec, value, depth, True)
        _put_varint(writer, spec.tag)
    elif _write_value(writer, spec, value, depth, False):
        _put_varint(writer, spec.tag)
    return 0


cdef int _write_list(Writer *writer, Spec *field, object value, int depth) except -1:
    cdef list elements
    cdef object held
    cdef Py_ssize_t index
    cdef size_t before
    cdef bint is_quick = _runs_nothing(field)
    if type(value) is not list:
        raise _Unfit
    elements = <list>value
    index = len(elements)
    if not index:
        return 0
    before = writer.end - writer.at
    while index > 0:
        index -= 1
        if index >= PyList_GET_SIZE(elements):
            raise _Unfit  # the list became shorter meanwhile
        if index:
            wire_prefetch(PyList_GET_ITEM(elements, index - 1))
        if is_quick:
            _write_value(writer, field, <object>PyList_GET_ITEM(elements, index), depth, True)
        else:
            held = <object>PyList_GET_ITEM(elements, index)
            _write_value(writer, field, held, depth, True)
        if not field.packed:
            _put_varint(writer, field.tag)
    if field.packed:
        _put_length(writer, before)
        _put_varint(writer, field.number << 3 | LENGTH)
    return 0


cdef int _write_map(Writer *writer, Spec *field, object value, int depth) except -1:
    cdef list entries
    cdef tuple entry
    cdef Py_ssize_t index
    cdef size_t before
    if type(value) is not dict:
        raise _Unfit
    if not <dict>value:
        return 0
    entries = PyDict_Items(value)
    index = len(entries)
    while index > 0:
        index -= 1
        entry = <tuple>entries[index]
        before = writer.end - writer.at
        _write_value(writer, field.inner, entry[1], depth + 1, True)
        _put_varint(writer, 2 << 3 | <uint32_t>field.inner.wire)
        _write_value(writer, field.key, entry[0], depth + 1, True)
        _put_varint(writer, 1 << 3 | <uint32_t>field.key.wire)
        _put_length(writer, before)
        _put_varint(writer, field.number << 3 | LENGTH)
    return 0


cdef int _write_value(Writer *writer, Spec *field, object value, int depth, bint always) except -1:
    """Encode one value, with its length and without its tag. Return 0 for a default, unless `always`."""
    cdef int kind = field.kind
    cdef const char *text
    cdef Py_ssize_t size = 0
    cdef size_t before
    cdef double number
    cdef float single
    cdef uint64_t bits64 = 0
    cdef uint32_t bits32 = 0
    if field.wire == LENGTH:
        if kind == STRING:
            if not PyUnicode_CheckExact(value):
                raise _Unfit
            if PyUnicode_IS_COMPACT_ASCII(value):
                text, size = <const char *>PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value)
            else:
                text = PyUnicode_AsUTF8AndSize(value, &size)
        elif kind == BYTES:
            if not PyBytes_CheckExact(value):
                raise _Unfit
            text, size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
        else:
            before = writer.end - writer.at
            if kind == MESSAGE:
                _write_message(writer, <Schema>field.schema, value, depth + 1)
            elif kind == WRAPPER:
                if _write_value(writer, field.inner, value, depth, False):
                    _put_varint(writer, 1 << 3 | <uint32_t>field.inner.wire)
            elif kind == TIMESTAMP:
                _write_datetime(writer, value)
            elif kind == PLAIN:
                _write_struct(writer, value, depth + 1)
            else:
                _write_timedelta(writer, value)
            _put_length(writer, before)
            return 1
        if not size and not always:
            return 0
        _put(writer, text, size)
        _put_varint(writer, size)
        return 1
    if kind == DOUBLE or kind == FLOAT:
        if PyFloat_CheckExact(value):
            number = PyFloat_AS_DOUBLE(value)
        elif PyLong_CheckExact(value):
            number = PyLong_AsDouble(value)
        else:
            raise _Unfit
        if kind == DOUBLE:
            memcpy(&bits64, &number, 8)
            return _put(writer, &number, 8) or 1 if bits64 or always else 0
        single = <float>number
        if isinf(single) and not isinf(number):
            raise _Unfit
        memcpy(&bits32, &single, 4)
        return _put(writer, &single, 4) or 1 if bits32 or always else 0
    bits64 = _bits_of(field, value)
    if not bits64 and not always:
        return 0
    if field.wire == VARINT:
        _put_varint(writer, bits64)
    elif field.wire == BITS64:
        _put(writer, &bits64, 8)
    elif field.wire == BITS32:
        bits32 = <uint32_t>bits64
        _put(writer, &bits32, 4)
    else:
        raise _Unfit
    return 1


cdef uint64_t _bits_of(Spec *field, object value) except? 1:
    """Return the varint of an integer, bool or enum; narrower ones are sign-extended to 64 bits."""
    cdef int kind = field.kind
    cdef int64_t number
    cdef uint64_t natural
    if kind == BOOL:
        if value is True:
            return 1
        if value is False:
            return 0
        raise _Unfit
    if not PyLong_CheckExact(value) and (kind != ENUM or type(value) is not <object>field.enum):
        raise _Unfit
    if kind == UINT64 or kind == FIXED64:
        return PyLong_AsUnsignedLongLong(value)
    if kind == UINT32 or kind == FIXED32:
        natural = PyLong_AsUnsignedLongLong(value)
        if natural > UINT32_MAX:
            raise _Unfit
        return natural
    number = PyLong_AsLongLong(value)
    if kind == INT64 or kind == SFIXED64:
        return <uint64_t>number
    if kind == SINT64:
        return (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)
    if not INT32_MIN <= number <= INT32_MAX:
        raise _Unfit
    if kind == SINT32:
        return <uint32_t>((<uint32_t>number << 1) ^ <uint32_t>(number >> 31))
    return <uint64_t>number


cdef int _write_seconds(Writer *writer, int64_t seconds, int64_t nanos) except -1:
    if nanos:
        _put_varint(writer, <uint64_t>nanos)
        _put_varint(writer, 2 << 3)
    if seconds:
        _put_varint(writer, <uint64_t>seconds)
        _put_varint(writer, 1 << 3)
    return 0


cdef int _write_datetime(Writer *writer, object value) except -1:
    cdef int64_t year, month, days, seconds, rest = 0
    if type(value) is EXACT_DATETIME:
        rest = value.nanosecond
    elif not PyDateTime_CheckExact(value):
        raise _Unfit
    if datetime_tzinfo(value) is not UTC:
        raise _Unfit
    year, month = datetime_year(value), datetime_month(value)
    # Count years and months from March, so that the leap day is the last of the year.
    if month > 2:
        month -= 3
    else:
        month += 9
        year -= 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + datetime_day(value) - 307
    seconds = days * 86_400 + datetime_hour(value) * 3600 + datetime_minute(value) * 60 + datetime_second(value)
    return _write_seconds(writer, seconds + MIN_TIMESTAMP, <int64_t>datetime_microsecond(value) * 1000 + rest)


cdef int _write_timedelta(Writer *writer, object value) except -1:
    cdef int64_t seconds, nanos, rest = 0
    if type(value) is EXACT_TIMEDELTA:
        rest = value.nanoseconds
    elif not PyDelta_CheckExact(value):
        raise _Unfit
    seconds = <int64_t>timedelta_days(value) * 86_400 + timedelta_seconds(value)
    nanos = <int64_t>timedelta_microseconds(value) * 1000 + rest
    if seconds < 0 and nanos:
        seconds += 1
        nanos -= 1_000_000_000
    if not -MAX_DURATION <= seconds <= MAX_DURATION:
        raise _Unfit
    return _write_seconds(writer, seconds, nanos)
