# The position of attributes in an instance. A trick: it reads CPython's internal layout, and saves a third of the time.
#
# An instance of a plain class has no dict until code asks for it: its attributes are in an array, at positions that all
# instances of the class share and that never change. A schema learns the positions from an instance that it fills
# itself, checks there that the layout is as described here, and then reads and writes the array. If anything differs
# (another interpreter, an instance with a dict, a deleted name, too many attributes), attributes go through the
# functions `fill` and `read` of the schema.

cdef extern from *:
    """
    #include <stddef.h>

    #if defined(PYPY_VERSION) || defined(GRAALVM_PYTHON) || defined(Py_GIL_DISABLED)
    #define WIRE_PLACES 0
    #elif PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000
    #define WIRE_PLACES 1
    #else
    #define WIRE_PLACES 0  /* a version whose layout was not checked */
    #endif

    #if WIRE_PLACES && PY_VERSION_HEX >= 0x030D0000
    /* `struct _dictvalues`, directly after the object's head. */
    typedef struct {
        uint8_t capacity, size, embedded, valid;
        PyObject *values[1];
    } wire_inline;
    #define WIRE_INLINE(values) ((wire_inline *)((char *)(values) - offsetof(wire_inline, values)))

    static inline PyObject **wire_values(PyObject *object) {
        wire_inline *found = (wire_inline *)((char *)object + sizeof(PyObject));
        return found->valid ? found->values : NULL;
    }
    static inline int wire_has_places(PyTypeObject *cls) {
        return cls->tp_flags & Py_TPFLAGS_INLINE_VALUES && cls->tp_basicsize == sizeof(PyObject) && !cls->tp_itemsize;
    }
    static inline int wire_capacity(PyObject **values) { return WIRE_INLINE(values)->capacity; }
    static inline uint8_t *wire_size(PyObject **values) { return &WIRE_INLINE(values)->size; }
    static inline uint8_t *wire_order(PyObject **values, int index) {
        return (uint8_t *)&values[WIRE_INLINE(values)->capacity] + index;
    }

    #elif WIRE_PLACES
    /* A separate array; before it, backwards: capacity, size, and the positions in the order in which they were set. */
    static inline PyObject **wire_values(PyObject *object) {
    #if PY_VERSION_HEX >= 0x030C0000
        char *found = ((char **)object)[-3];
        return (uintptr_t)found & 1 ? (PyObject **)(found + 1) : NULL;
    #else
        return ((PyObject ***)object)[-4];
    #endif
    }
    static inline int wire_has_places(PyTypeObject *cls) {
        return (cls->tp_flags & Py_TPFLAGS_MANAGED_DICT) != 0;
    }
    static inline int wire_capacity(PyObject **values) { return ((uint8_t *)values)[-1] - 2; }
    static inline uint8_t *wire_size(PyObject **values) { return (uint8_t *)values - 2; }
    static inline uint8_t *wire_order(PyObject **values, int index) { return (uint8_t *)values - 3 - index; }

    #else
    static inline PyObject **wire_values(PyObject *object) { return NULL; }
    static inline int wire_has_places(PyTypeObject *cls) { return 0; }
    static inline int wire_capacity(PyObject **values) { return 0; }
    static inline uint8_t *wire_size(PyObject **values) { return NULL; }
    static inline uint8_t *wire_order(PyObject **values, int index) { return NULL; }
    #endif
    """
    PyObject **wire_values(PyObject *instance) noexcept
    bint wire_has_places(PyTypeObject *cls) noexcept
    int wire_capacity(PyObject **values) noexcept
    uint8_t *wire_size(PyObject **values) noexcept
    uint8_t *wire_order(PyObject **values, int index) noexcept


cdef inline object _bare(Schema schema):
    """Call `object.__new__`. A bare allocation would create a dict, which makes the instance slower for good."""
    return PyBaseObject_Type.tp_new(<PyTypeObject *>schema.cls, <PyObject *>NOTHING, NULL)


cdef int _learn_places(Schema schema) except -1:
    """Find the positions of all attributes, the unknown fields last; leave `room` at 0 if there are none."""
    cdef list marks = [object() for _ in range(schema.count)]
    cdef PyObject **values
    cdef Py_ssize_t index
    cdef int place, room
    cdef object probe
    if not wire_has_places(<PyTypeObject *>schema.cls):
        return 0
    probe = _bare(schema)
    schema.fill(probe, *marks)
    marks.append(b"")
    if schema.read(probe) != tuple(marks):
        return 0
    values = wire_values(<PyObject *>probe)
    room = 0
    if values is NULL or wire_size(values)[0] != schema.count + 1 or wire_capacity(values) < schema.count + 1:
        return 0
    for index in range(schema.count + 1):
        # They were set in this order.
        place = wire_order(values, <int>index)[0]
        if place >= wire_capacity(values) or values[place] != <PyObject *>marks[index]:
            return 0
        schema.places[index] = <uint8_t>place
        room = max(room, place + 1)
    schema.room = room
    return 0


cdef inline bint _place(Schema schema, object made, PyObject **values) noexcept:
    """Move values, one per field, into an instance without attributes; return whether that was possible."""
    cdef PyObject **target
    cdef Py_ssize_t index
    if not schema.room:
        return False
    target = wire_values(<PyObject *>made)
    if target is NULL or wire_size(target)[0] != 0 or wire_capacity(target) < schema.room:
        return False
    for index in range(schema.count):
        target[schema.places[index]] = values[index]
        wire_order(target, <int>index)[0] = schema.places[index]
    target[schema.places[schema.count]] = Py_NewRef(<PyObject *>EMPTY)
    wire_order(target, <int>schema.count)[0] = schema.places[schema.count]
    wire_size(target)[0] = <uint8_t>(schema.count + 1)
    return True


cdef inline PyObject **_attributes(Schema schema, object message) noexcept:
    """Return the current array of an instance's attributes, or NULL."""
    cdef PyObject **values
    if not schema.room:
        return NULL
    values = wire_values(<PyObject *>message)
    if values is NULL or wire_capacity(values) < schema.room:
        return NULL
    return values
