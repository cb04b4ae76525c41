# Decoding. `end` is the first byte after the message; no function reads it or anything beyond.

cdef inline const uint8_t *_varint(const uint8_t *at, const uint8_t *end, uint64_t *value) except NULL:
    cdef uint64_t result = 0
    cdef uint8_t byte
    cdef int shift = 0
    if at < end and at[0] < 0x80:
        value[0] = at[0]
        return at + 1
    while at < end:
        byte = at[0]
        at += 1
        if shift == 63 and byte > 1:
            break
        result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = result
            return at
        shift += 7
    raise _Unfit


cdef inline const uint8_t *_tag(const uint8_t *at, const uint8_t *end, uint32_t *tag) except NULL:
    if at < end and 8 <= at[0] < 0x80:
        tag[0] = at[0]
        return at + 1
    return _long_tag(at, end, tag)


cdef const uint8_t *_long_tag(const uint8_t *at, const uint8_t *end, uint32_t *tag) except NULL:
    cdef uint64_t value = 0
    cdef const uint8_t *after = _varint(at, end, &value)
    # A tag longer than necessary, of more than 32 bits, or of field number 0.
    if (after - at > 1 and (after - 1)[0] == 0) or value > UINT32_MAX or value < 8:
        raise _Unfit
    tag[0] = <uint32_t>value
    return after


cdef inline const uint8_t *_length(const uint8_t *at, const uint8_t *end, const uint8_t **stop) except NULL:
    if at < end and at[0] < 0x80 and at[0] < end - at:
        stop[0] = at + 1 + at[0]
        return at + 1
    return _long_length(at, end, stop)


cdef const uint8_t *_long_length(const uint8_t *at, const uint8_t *end, const uint8_t **stop) except NULL:
    cdef uint64_t value = 0
    cdef const uint8_t *after = _varint(at, end, &value)
    if after - at > 5 or value > <uint64_t>(end - after):
        raise _Unfit
    stop[0] = after + value
    return after


cdef inline const uint8_t *_fixed(const uint8_t *at, const uint8_t *end, void *value, Py_ssize_t size) except NULL:
    if end - at < size:
        raise _Unfit
    memcpy(value, at, size)
    return at + size


cdef object _read_message(Schema schema, const uint8_t *at, const uint8_t *end, int depth, Text *texts):
    cdef PyObject *values[FIELDS + 1]  # the first is the instance
    cdef Py_ssize_t index
    cdef object made
    cdef bint placed = False
    if depth > DEPTH:
        raise _Unfit
    memset(values, 0, (schema.count + 1) * sizeof(PyObject *))
    try:
        _read_fields(schema, values + 1, at, end, depth, texts)
        for index in range(schema.count):
            if values[index + 1] is NULL:
                _set_default(schema, index, &values[index + 1])
        made = _bare(schema)
        placed = _place(schema, made, values + 1)
        if not placed:
            _keep(&values[0], made)
            PyObject_Vectorcall(schema.fill, values, schema.count + 1, NULL)
        return made
    finally:
        if not placed:
            for index in range(schema.count + 1):
                Py_XDECREF(values[index])


cdef inline int _set_default(Schema schema, Py_ssize_t index, PyObject **place) except -1:
    if schema.defaults[index] is not NULL:
        place[0] = Py_NewRef(schema.defaults[index])
    elif schema.specs[index].kind == MAP:
        _keep(place, {})
    else:
        _keep(place, [])
    return 0


cdef inline void _keep(PyObject **place, object value) noexcept:
    cdef PyObject *before = place[0]
    Py_INCREF(value)
    place[0] = <PyObject *>value
    if before is not NULL:
        Py_DECREF(<object>before)


cdef inline int _slot(Schema schema, uint32_t number) except -1:
    cdef int slot
    cdef Py_ssize_t index
    if number < DENSE:
        slot = schema.dense[number]
        if slot >= 0:
            return slot
    else:
        for index in range(schema.count):
            if schema.specs[index].number == number:
                return <int>index
    raise _Unfit


cdef int _read_fields(Schema schema, PyObject **values, const uint8_t *at, const uint8_t *end, int depth, Text *texts) except -1:
    cdef Spec *spec
    cdef int slot
    cdef uint32_t tag = 0
    cdef uint32_t groups = 0
    while at < end:
        at = _tag(at, end, &tag)
        slot = _slot(schema, tag >> 3)
        spec = schema.specs[slot]
        if spec.repeated:
            at = _read_repeated(spec, &values[slot], tag & 7, at, end, depth, texts)
            continue
        if tag != spec.tag:
            raise _Unfit
        if values[slot] is not NULL:
            if spec.kind in (MESSAGE, TIMESTAMP, DURATION, WRAPPER, PLAIN):
                raise _Unfit  # a second occurrence must be merged
        elif spec.group:
            if groups & spec.group:
                raise _Unfit
            groups |= spec.group
        _keep(&values[slot], _read_value(spec, &at, end, depth, texts))
    return 0


cdef const uint8_t *_read_repeated(
    Spec *field, PyObject **place, uint32_t wire, const uint8_t *at, const uint8_t *end, int depth, Text *texts
) except NULL:
    cdef list elements
    cdef const uint8_t *stop = at
    if field.kind == MAP:
        if wire != LENGTH:
            raise _Unfit
        if place[0] is NULL:
            _keep(place, {})
        at = _length(at, end, &stop)
        _read_entry(field, <dict>place[0], at, stop, depth + 1, texts)
        return stop
    if place[0] is NULL:
        _keep(place, [])
    elements = <list>place[0]
    if wire == <uint32_t>field.wire:
        elements.append(_read_value(field, &at, end, depth, texts))
    elif wire == LENGTH and field.wire != NO_WIRE:
        at = _length(at, end, &stop)
        while at < stop:
            elements.append(_read_value(field, &at, stop, depth, texts))
    else:
        raise _Unfit
    return at


cdef int _read_entry(Spec *field, dict entries, const uint8_t *at, const uint8_t *end, int depth, Text *texts) except -1:
    cdef object key = None
    cdef object value = None
    cdef bint has_value = False
    cdef uint32_t tag = 0
    while at < end:
        at = _tag(at, end, &tag)
        if tag == (1 << 3 | <uint32_t>field.key.wire) and key is None:
            key = _read_key(&at, end) if field.key.kind == STRING else _read_value(field.key, &at, end, depth, texts)
        elif tag == (2 << 3 | <uint32_t>field.inner.wire) and not has_value:
            value = _read_value(field.inner, &at, end, depth, texts)
            has_value = True
        else:
            raise _Unfit
    if not has_value:
        value = _absent(field.inner, depth, texts)
    entries[<object>field.key.default if key is None else key] = value
    return 0


cdef object _read_key(const uint8_t **place, const uint8_t *end):
    """Decode the text of a map key. A service has few different ones, so short ones are cached."""
    cdef const uint8_t *stop = NULL
    cdef const uint8_t *at = _length(place[0], end, &stop)
    cdef Py_ssize_t size = stop - at
    cdef uint64_t mixed = size
    cdef Py_ssize_t index
    cdef object key
    place[0] = stop
    if size > 24:
        return PyUnicode_DecodeUTF8(<const char *>at, size, NULL)
    for index in range(size):
        mixed = (mixed ^ at[index]) * 0x9E3779B97F4A7C15ULL
    index = mixed >> 55
    key = KEYS[index]
    if key is not None and PyUnicode_GET_LENGTH(key) == size and memcmp(PyUnicode_DATA(key), at, size) == 0:
        return key
    key = PyUnicode_DecodeUTF8(<const char *>at, size, NULL)
    if PyUnicode_IS_COMPACT_ASCII(key):
        KEYS[index] = key
    return key


cdef inline object _new_text(const uint8_t *at, Py_ssize_t size):
    cdef uint64_t high = 0
    cdef uint64_t part
    cdef Py_ssize_t index = 0
    cdef object text
    if size > 1:
        while index + 8 <= size:
            memcpy(&part, at + index, 8)
            high |= part
            index += 8
        while index < size:
            high |= at[index]
            index += 1
        if not high & 0x8080808080808080ULL:
            text = PyUnicode_New(size, 127)
            memcpy(PyUnicode_DATA(text), at, size)
            return text
    return PyUnicode_DecodeUTF8(<const char *>at, size, NULL)


cdef object _read_text(const uint8_t *at, Py_ssize_t size, Text *texts):
    """Decode the text of a value. Repeated texts, such as brands and currencies, become one object."""
    cdef Text *same
    cdef uint64_t[3] sample
    cdef object text
    if texts is NULL or size < 2 or size > LONGEST:
        return _new_text(at, size)
    if size >= 8:
        memcpy(&sample[0], at, 8)
        memcpy(&sample[1], at + (size >> 1) - 4, 8)
        memcpy(&sample[2], at + size - 8, 8)
    else:
        sample[0] = sample[1] = sample[2] = 0
        memcpy(sample, at, size)
    sample[0] = (sample[0] ^ <uint64_t>size) * 0x9E3779B97F4A7C15ULL
    sample[0] += sample[1] * 0xBF58476D1CE4E5B9ULL + sample[2] * 0x94D049BB133111EBULL
    same = &texts[sample[0] >> 55]
    if same.size == size and memcmp(same.start, at, size) == 0:
        return <object>same.text
    text = _new_text(at, size)
    _keep(&same.text, text)
    same.start, same.size = at, size
    return text


cdef object _absent(Spec *field, int depth, Text *texts):
    """Return the default for a map value that the entry leaves out."""
    cdef const uint8_t *nothing = <const uint8_t *>b""
    if field.kind == MESSAGE:
        return _read_message(<Schema>field.schema, nothing, nothing, depth + 1, texts)
    if field.kind == TIMESTAMP or field.kind == DURATION:
        return _read_time(field.kind, nothing, nothing)
    return <object>field.inner.default if field.kind == WRAPPER else <object>field.default


cdef object _read_value(Spec *field, const uint8_t **place, const uint8_t *end, int depth, Text *texts):
    """Decode one value and move `place` after it; its wire type was already checked."""
    cdef const uint8_t *at = place[0]
    cdef const uint8_t *stop = at
    cdef uint64_t bits64 = 0
    cdef uint32_t bits32 = 0
    cdef double number = 0
    cdef float single = 0
    cdef int kind = field.kind
    if field.wire == LENGTH:
        at = _length(at, end, &stop)
        place[0] = stop
        if kind == STRING:
            return _read_text(at, stop - at, texts)
        if kind == MESSAGE:
            return _read_message(<Schema>field.schema, at, stop, depth + 1, texts)
        if kind == BYTES:
            return PyBytes_FromStringAndSize(<const char *>at, stop - at)
        if kind == WRAPPER:
            return _read_wrapped(field.inner, at, stop, depth, texts)
        if kind == PLAIN:
            return _read_struct(at, stop, depth + 1)
        return _read_time(kind, at, stop)
    if field.wire == VARINT:
        place[0] = _varint(at, end, &bits64)
        return _of_varint(field, bits64)
    if kind == DOUBLE:
        place[0] = _fixed(at, end, &number, 8)
        return number
    if kind == FLOAT:
        place[0] = _fixed(at, end, &single, 4)
        return <double>single
    # Two returns each: a conditional expression would use the unsigned type for both.
    if field.wire == BITS64:
        place[0] = _fixed(at, end, &bits64, 8)
        if kind == SFIXED64:
            return <int64_t>bits64
        return bits64
    place[0] = _fixed(at, end, &bits32, 4)
    if kind == SFIXED32:
        return <int32_t>bits32
    return bits32


cdef object _of_varint(Spec *field, uint64_t bits):
    """Convert to the field's type; narrower types take the lower bits, as all protobuf parsers do."""
    cdef int kind = field.kind
    cdef object member
    if kind == ENUM:
        if bits < COMMON:
            member = <object>field.common[bits]
            if member is not None:
                return member
        return (<object>field.members)[<int32_t>bits]
    if kind == BOOL:
        return bits != 0
    if kind == INT64:
        return <int64_t>bits
    if kind == INT32:
        return <int32_t>bits
    if kind == UINT32:
        return <uint32_t>bits
    if kind == SINT32:
        return <int32_t>((<uint32_t>bits >> 1) ^ (0 - (<uint32_t>bits & 1)))
    if kind == SINT64:
        return <int64_t>((bits >> 1) ^ (0 - (bits & 1)))
    return bits


cdef object _read_wrapped(Spec *inner, const uint8_t *at, const uint8_t *end, int depth, Text *texts):
    cdef object value = <object>inner.default
    cdef uint32_t tag = 0
    while at < end:
        at = _tag(at, end, &tag)
        if tag != (1 << 3 | <uint32_t>inner.wire):
            raise _Unfit
        value = _read_value(inner, &at, end, depth, texts)
    return value


cdef object _read_time(int kind, const uint8_t *at, const uint8_t *end):
    cdef uint64_t bits = 0
    cdef uint32_t tag = 0
    cdef int64_t seconds = 0
    cdef int32_t nanos = 0
    while at < end:
        at = _tag(at, end, &tag)
        if tag == 1 << 3:
            at = _varint(at, end, &bits)
            seconds = <int64_t>bits
        elif tag == 2 << 3:
            at = _varint(at, end, &bits)
            nanos = <int32_t>bits
        else:
            raise _Unfit
    return _datetime(seconds, nanos) if kind == TIMESTAMP else _timedelta(seconds, nanos)


cdef object _datetime(int64_t seconds, int32_t nanos):
    cdef int64_t days, era, of_era, year, of_year, month, rest
    cdef object moment
    if not MIN_TIMESTAMP <= seconds <= MAX_TIMESTAMP or not 0 <= nanos <= 999_999_999:
        raise _Unfit
    # Count seconds from the start of year 1, and days from 1 March of year 0: neither is negative.
    rest = (seconds - MIN_TIMESTAMP) % 86_400
    days = (seconds - MIN_TIMESTAMP) // 86_400 + 306
    era, of_era = days // 146_097, days % 146_097
    of_year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    year = era * 400 + of_year
    days = of_era - (365 * of_year + of_year // 4 - of_year // 100)
    month = (5 * days + 2) // 153
    days -= (153 * month + 2) // 5
    if month < 10:
        month += 3
    else:
        month -= 9
        year += 1
    if nanos % 1000:
        moment = NEW_DATETIME(
            EXACT_DATETIME, year, month, days + 1, rest // 3600, rest // 60 % 60, rest % 60, nanos // 1000, UTC
        )
        PyObject_GenericSetAttr(moment, "nanosecond", nanos % 1000)
        return moment
    return datetime_new(
        <int>year, <int>month, <int>days + 1, <int>(rest // 3600), <int>(rest // 60 % 60), <int>(rest % 60),
        nanos // 1000, UTC
    )


cdef object _timedelta(int64_t seconds, int32_t nanos):
    cdef int micros
    cdef object span
    if not -MAX_DURATION <= seconds <= MAX_DURATION or not -999_999_999 <= nanos <= 999_999_999:
        raise _Unfit
    if seconds < 0 < nanos or nanos < 0 < seconds:
        raise _Unfit
    micros = nanos // 1000  # rounded towards minus infinity, as in Python
    if nanos % 1000:
        span = NEW_TIMEDELTA(EXACT_TIMEDELTA, 0, seconds, micros)
        PyObject_GenericSetAttr(span, "nanoseconds", nanos % 1000)
        return span
    return timedelta_new(<int>(seconds // 86_400), <int>(seconds % 86_400), micros)
