cdef class Reader:
    """A thread that empties a datagram socket into a core. Counts only ever grow."""

    cdef reader_t *reader
    cdef Core owner
    cdef tuple last  # counts, once it is closed
    cdef tuple last_drops

    def __cinit__(self, Core owner, int socket, int wake, uint32_t profile, size_t buffer, policed=None):
        """`wake` is an eventfd that is written to when the core's queue holds something; OSError otherwise.

        `policed` is (networks that are heard, places of networks, lines per second and sender) where it matters who
        sends; networks are packed as senders.h has them.
        """
        cdef policy_t policy
        cdef const policy_t *given = NULL
        cdef bytes allowed, places
        self.owner = owner
        if policed is not None:
            allowed, places, policy.rate = policed
            policy.allowed = <const network *><const char *>allowed
            policy.allowed_length = len(allowed) // sizeof(network)
            policy.places = <const network *><const char *>places
            policy.places_length = len(places) // sizeof(network)
            given = &policy
        self.reader = reader_start(owner.core, socket, wake, profile, buffer, given)
        if self.reader == NULL:
            raise OSError("no thread for a reader")

    def __dealloc__(self):
        reader_free(self.reader)

    def end(self, bint at_once):
        """Tells the thread to end: at once, or when it has taken what the kernel holds. Does not wait."""
        if self.reader != NULL:
            reader_end(self.reader, 2 if at_once else 1)

    def close(self):
        """Ends the thread and waits for that."""
        cdef reader_t *reader = self.reader
        if reader == NULL:
            return
        reader_end(reader, 2)
        with nogil:
            reader_join(reader)
        self.last = self.counts()
        self.last_drops = self.drops()
        self.reader = NULL
        reader_free(reader)

    @property
    def ended(self):
        return self.reader == NULL or reader_has_ended(self.reader) != 0

    def counts(self):
        """(datagrams, bytes, lines, naps, errors); the lines are those that were not queued for Python."""
        cdef int n
        if self.reader == NULL:
            return self.last
        return tuple([reader_count(self.reader, n) for n in range(5)])

    def drops(self):
        """(lines by [reason][place], [(family, address, lines)...], senders that were not told apart)."""
        cdef const named_drops *named = NULL
        cdef senders_t *senders
        cdef size_t length, n
        cdef int why, place
        if self.reader == NULL:
            return self.last_drops
        senders = self.reader.senders
        if senders == NULL:
            return [[0] * PLACES for why in range(DROPS)], [], 0
        senders_lock(senders)
        length = senders_named(senders, &named)
        found = [
            (named[n].address.family, PyBytes_FromStringAndSize(<const char *>named[n].address.bytes, 16),
             named[n].lines)
            for n in range(length)
        ]
        lines = [[senders_dropped(senders, why, place) for place in range(PLACES)] for why in range(DROPS)]
        strangers = senders_strangers(senders)
        senders_unlock(senders)
        return lines, found, strangers
