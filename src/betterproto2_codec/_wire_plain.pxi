# Structs as plain data, with the same results as `_struct`, but without creating messages.

cdef int SINCE_TURN = 0
cdef object GIVE_WAY = eval("lambda: None")  # compiled by the interpreter, not by Cython


cdef dict _read_struct(const uint8_t *at, const uint8_t *end, int depth):
    cdef dict fields = {}
    cdef const uint8_t *stop = at
    cdef uint32_t tag = 0
    if depth > DEPTH:
        raise _Unfit
    while at < end:
        at = _tag(at, end, &tag)
        if tag != (1 << 3 | LENGTH):
            raise _Unfit
        at = _length(at, end, &stop)
        _read_plain_entry(fields, at, stop, depth + 1)
        at = stop
    return fields


cdef int _read_plain_entry(dict fields, const uint8_t *at, const uint8_t *end, int depth) except -1:
    cdef object key = None
    cdef object value = None
    cdef const uint8_t *stop = at
    cdef bint has_value = False
    cdef uint32_t tag = 0
    while at < end:
        at = _tag(at, end, &tag)
        if tag == (1 << 3 | LENGTH) and key is None:
            key = _read_key(&at, end)
        elif tag == (2 << 3 | LENGTH) and not has_value:
            at = _length(at, end, &stop)
            value = _read_plain_value(at, stop, depth + 1)
            has_value = True
            at = stop
        else:
            raise _Unfit
    fields["" if key is None else key] = value
    return 0


cdef object _read_plain_value(const uint8_t *at, const uint8_t *end, int depth):
    cdef const uint8_t *stop = at
    cdef uint32_t tag = 0
    cdef uint64_t bits = 0
    cdef double number = 0
    cdef object value = None
    _let_others_run()
    if depth > DEPTH:
        raise _Unfit
    if at == end:
        return None
    at = _tag(at, end, &tag)
    if tag == (3 << 3 | LENGTH):
        at = _length(at, end, &stop)
        value = PyUnicode_DecodeUTF8(<const char *>at, stop - at, NULL)
        at = stop
    elif tag == (2 << 3 | BITS64):
        at = _fixed(at, end, &number, 8)
        value = _plain_number(number)
    elif tag == (4 << 3 | VARINT):
        at = _varint(at, end, &bits)
        value = bits != 0
    elif tag == (5 << 3 | LENGTH):
        at = _length(at, end, &stop)
        value = _read_struct(at, stop, depth + 1)
        at = stop
    elif tag == (6 << 3 | LENGTH):
        at = _length(at, end, &stop)
        value = _read_plain_list(at, stop, depth + 1)
        at = stop
    elif tag == (1 << 3 | VARINT):
        at = _varint(at, end, &bits)
    else:
        raise _Unfit
    if at != end:
        raise _Unfit  # a second member of the oneof, or something unknown
    return value


cdef list _read_plain_list(const uint8_t *at, const uint8_t *end, int depth):
    cdef list elements = []
    cdef const uint8_t *stop = at
    cdef uint32_t tag = 0
    if depth > DEPTH:
        raise _Unfit
    while at < end:
        at = _tag(at, end, &tag)
        if tag != (1 << 3 | LENGTH):
            raise _Unfit
        at = _length(at, end, &stop)
        elements.append(_read_plain_value(at, stop, depth + 1))
        at = stop
    return elements


cdef inline object _plain_number(double number):
    if -EXACT <= number <= EXACT and number == trunc(number) and (number != 0 or not signbit(number)):
        return <int64_t>number
    if not isfinite(number):
        raise _Unfit
    return number


def struct_bytes(mapping):
    """Encode a dict as a Struct; None if Python code has to do it."""
    cdef uint8_t[FIRST_ROOM] room
    cdef Writer writer
    writer.start = room
    writer.at = writer.end = room + FIRST_ROOM
    writer.heap = NULL
    try:
        _write_struct(&writer, mapping, 0)
        return _written(&writer)
    except (_Unfit, UnicodeError, OverflowError, IndexError):
        return None
    finally:
        _finish(&writer)


cdef int _write_struct(Writer *writer, object value, int depth) except -1:
    """Encode the entries of a Struct, without its length."""
    cdef list entries
    cdef tuple entry
    cdef Py_ssize_t index
    cdef size_t before
    if depth > DEPTH or type(value) is not dict:
        raise _Unfit
    entries = PyDict_Items(value)
    index = len(entries)
    while index > 0:
        index -= 1
        entry = <tuple>entries[index]
        before = writer.end - writer.at
        _write_element(writer, entry[1], 2, depth + 2)
        _write_text(writer, entry[0])
        _put_varint(writer, 1 << 3 | LENGTH)
        _put_length(writer, before)
        _put_varint(writer, 1 << 3 | LENGTH)
    return 0


cdef int _write_element(Writer *writer, object value, uint32_t number, int depth) except -1:
    """Encode a Value with its length and tag; `number` is that of its field."""
    cdef size_t before = writer.end - writer.at
    _write_plain_value(writer, value, depth)
    _put_length(writer, before)
    return _put_varint(writer, number << 3 | LENGTH)


cdef int _write_plain_value(Writer *writer, object value, int depth) except -1:
    cdef size_t before = writer.end - writer.at
    cdef Py_ssize_t index
    cdef double number
    _let_others_run()
    if depth > DEPTH:
        raise _Unfit
    if PyUnicode_CheckExact(value):
        _write_text(writer, value)
        return _put_varint(writer, 3 << 3 | LENGTH)
    if value is None:
        _put_varint(writer, 0)
        return _put_varint(writer, 1 << 3 | VARINT)
    if value is True or value is False:
        _put_varint(writer, value is True)
        return _put_varint(writer, 4 << 3 | VARINT)
    if PyFloat_CheckExact(value) or PyLong_CheckExact(value):
        number = _plain_double(value)
        _put(writer, &number, 8)
        return _put_varint(writer, 2 << 3 | BITS64)
    if type(value) is dict:
        _write_struct(writer, value, depth + 1)
        _put_length(writer, before)
        return _put_varint(writer, 5 << 3 | LENGTH)
    if type(value) is not list:
        raise _Unfit
    index = len(<list>value)
    while index > 0:
        index -= 1
        _write_element(writer, (<list>value)[index], 1, depth + 2)
    _put_length(writer, before)
    return _put_varint(writer, 6 << 3 | LENGTH)


cdef int _write_text(Writer *writer, object value) except -1:
    """Encode a text with its length."""
    cdef Py_ssize_t size = 0
    cdef const char *text
    if not PyUnicode_CheckExact(value):
        raise _Unfit
    text = PyUnicode_AsUTF8AndSize(value, &size)
    _put(writer, text, size)
    return _put_varint(writer, size)


cdef double _plain_double(object value) except? -1:
    cdef double number
    cdef int64_t whole
    if PyLong_CheckExact(value):
        whole = PyLong_AsLongLong(value)
        if not -<int64_t>EXACT <= whole <= <int64_t>EXACT:
            raise _Unfit  # Python code decides whether it is exact
        return <double>whole
    number = PyFloat_AS_DOUBLE(value)
    if not isfinite(number):
        raise _Unfit
    return number


cdef inline int _let_others_run() except -1:
    """Let a waiting thread run, now and then; otherwise a large Struct would block all others.

    The interpreter switches threads at the start of a Python function. Releasing the lock for a moment does not work:
    the waiting thread wakes each time, and each time too late.
    """
    global SINCE_TURN
    SINCE_TURN += 1
    if SINCE_TURN >= TURN:
        SINCE_TURN = 0
        GIVE_WAY()
    return 0
