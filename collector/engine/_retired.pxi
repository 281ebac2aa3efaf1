cdef list list_of(const members *found):
    cdef list texts = []
    cdef uint32_t n
    for n in range(members_slots(found)):
        if found.slots[n].taken:
            texts.append(PyBytes_FromStringAndSize(member_text(&found.slots[n]), member_length(&found.slots[n])))
    return texts


cdef list parts_of(const exact *found):
    cdef uint16_t n
    return [] if found == NULL else [found.parts[n] for n in range(found.length)]


cdef bint alone(const cell *one):
    """Whether its series has no other cell, and whole numbers count once."""
    return one.next == UINT32_MAX and one.weight == 1.0


cdef bint is_small(const cell *one):
    """Whether a counter is no more than an integer of 64 bits."""
    cdef int64_t low = <int64_t>sum_low(one)
    return sum_fractions(one) == NULL and sum_high(one) == (-1 if low < 0 else 0) and low != INT64_MIN


cdef bint is_unmoved(const cell *one):
    """Whether a gauge is a value that was set, and not moved since."""
    return (one.is_set and not one.moves_real and move_high(one) == 0 and move_low(one) == 0
            and (one.is_real or gauge_integer(one) != INT64_MIN))


cdef class Retired:
    """The cells of an interval that has ended. Nobody writes to it any more; each is freed as it is read."""

    cdef interval *cells
    cdef Core owner  # keeps the keys
    cdef uint32_t at
    cdef uint8_t *room  # for a sketch as bytes
    cdef size_t room_size

    def __cinit__(self, Core owner):
        self.owner = owner

    def __dealloc__(self):
        interval_free(self.cells)
        free(self.room)

    def __len__(self):
        return self.cells.length

    @property
    def timers(self):
        """How many series are timers."""
        cdef uint32_t n, found = 0
        cdef const cell *one
        for n in range(self.cells.length):
            one = interval_cell(self.cells, n)
            found += one.state == C_TIMER and not one.linked
        return found

    def numbers(self):
        """The numbers of the series that are still to be read."""
        cdef uint32_t n
        return [interval_cell(self.cells, n).series for n in range(self.at, self.cells.length)]

    def read(self, Py_ssize_t size, uint32_t keep, uint64_t raw, uint64_t folded):
        """What the next `size` series gathered: five lists, or None at the end.

        counters  (series, sum)
        gauges    (series, value, milliseconds)
        timers    (series, sketch as bytes, the newest `keep` samples as the bytes of doubles)
        sets      (series, members)
        others    (series, state, one entry a weight: see `entry`), where one of the above cannot say it
        beyond    samples that were not kept, of `timers`

        Ends early when `raw` samples were kept or `folded` ones counted.
        """
        cdef list counters = [], gauges = [], timers = [], sets = [], others = []
        cdef uint64_t beyond = 0, kept = 0, counted = 0
        cdef uint32_t most, stay
        cdef cell *one
        cdef const sketch *sketch
        if self.at == self.cells.length:
            return None
        while size > 0 and kept < raw and counted < folded and self.at < self.cells.length:
            one = interval_cell(self.cells, self.at)
            if one.linked:
                self.at += 1
                continue
            size -= 1
            if one.state == C_COUNTER and alone(one) and is_small(one):
                counters.append((one.series, <int64_t>sum_low(one)))
            elif one.state == C_TIMER:
                counted += samples_length(one)
                sketch = self.sketch_of(one)
                if one.next == UINT32_MAX and sketch_fits(sketch, one.weight):
                    stay = min(samples_length(one), keep)
                    kept += stay
                    beyond += sketch.count - stay
                    timers.append((one.series, self.encoded(sketch, one.weight), newest(one, stay)))
                else:
                    kept += keep
                    others.append((one.series, one.state, self.entries(one, keep)))
            elif one.state == C_SET:
                if set_members(one).used:  # else all went ahead of the window
                    sets.append((one.series, list_of(set_members(one))))
            elif one.state != C_COUNTER and is_unmoved(one):
                # A zero loses its sign where moves are added to it, as in Python.
                gauges.append((one.series, gauge_real(one) + 0.0 if one.is_real else gauge_integer(one),
                               gauge_at(one)))
            else:
                others.append((one.series, one.state, self.entries(one, keep)))
            self.clear(one)
            self.at += 1
        return counters, gauges, timers, sets, others, beyond

    cdef const sketch *sketch_of(self, cell *one) except NULL:
        cdef const sketch *found = samples_fold(one)
        if found == NULL:
            raise MemoryError
        return found

    cdef bytes encoded(self, const sketch *found, double weight):
        cdef size_t most = sketch_most(found)
        cdef uint8_t *larger
        if most > self.room_size:
            larger = <uint8_t *>realloc(self.room, most)
            if larger == NULL:
                raise MemoryError
            self.room = larger
            self.room_size = most
        return PyBytes_FromStringAndSize(<const char *>self.room, sketch_encode(found, weight, self.room))

    cdef list entries(self, cell *one, uint32_t keep):
        cdef list found = []
        while True:
            found.append(self.entry(one, keep))
            if one.next == UINT32_MAX:
                return found
            one = interval_cell(self.cells, one.next)

    cdef tuple entry(self, cell *one, uint32_t keep):
        """What a cell gathered:

        counter  (weight, integer sum, parts of the sum of the others; neither is weighed)
        gauge    (value or None, move, milliseconds)
        timer    (weight, sketch as bytes in which each sample counts once, the newest `keep` samples as bytes)
        """
        cdef object value = None
        cdef object move
        if one.state == C_COUNTER:
            return one.weight, (<object>sum_high(one) << 64) + sum_low(one), parts_of(sum_fractions(one))
        if one.state == C_TIMER:
            return one.weight, self.encoded(self.sketch_of(one), 1.0), newest(one, min(samples_length(one), keep))
        if one.is_set:
            value = gauge_real(one) if one.is_real else gauge_integer(one)
        move = move_real(one) if one.moves_real else (<object>move_high(one) << 64) + move_low(one)
        return value, move, gauge_at(one)

    cdef void clear(self, cell *one):
        while True:
            cell_clear(one)
            if one.next == UINT32_MAX:
                return
            one = interval_cell(self.cells, one.next)


cdef bytes newest(const cell *one, uint32_t length):
    return PyBytes_FromStringAndSize(<const char *>(samples_values(one) + samples_length(one) - length),
                                     length * sizeof(double))
