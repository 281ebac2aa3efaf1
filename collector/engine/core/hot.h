/* The hot loop, compiled for each way to treat text (text.h): feed.c includes it with WAY and IN_WAY defined;
 * `WAY(split)` is split_plain or split_wide.
 *
 * A line costs some dozens of nanoseconds here, so every instruction shows: what a line needs later is kept in its
 * record, what all lines share in local variables, and what is rare is left to functions of feed.c. */

/* One line from `at` on; where the next one starts. */
IN_WAY static inline const char *WAY(read_line)(const core *core, WAY(seeded) key, uint32_t profile, record *to,
                                                const char *at, const char *end)
{
    marks found;
    if (__builtin_expect(!WAY(split)(at, end, &found), 0)) return whole_line(core, to, at, found.end);
    size_t length = (size_t)(found.end - at), tail_length = (size_t)(found.end - found.bar - 1);
    if (__builtin_expect(!tail_length || length > core->longest, 0)) return whole_line(core, to, at, found.end);
    to->what = DONE;
    to->line = at;
    to->end = found.end;
    to->value = found.colon + 1;
    to->tail = found.bar + 1;
    to->is_plain = (uint8_t)number_plain(found.colon + 1, found.bar, &to->number);
    wanted head = {at, found.bar + 1, (size_t)(found.colon - at), tail_length, 0};
    head.shape = to->shape = shape_of(profile, head.name_length, tail_length);
    to->hash = WAY(hash_head)(key, &head);
    __builtin_prefetch(bucket_at(core, to->hash));
    return found.end + 1;
}

/* Fills `ahead`, over the ends of datagrams, so that those of one line profit as well. */
IN_WAY static inline void WAY(read_ahead)(const core *core, feeder *feeder)
{
    const WAY(seeded) key = WAY(key)(core->seed);
    const uint32_t profile = feeder->profile;
    const char *at = feeder->at, *end = feeder->end;
    record *to = feeder->ahead;
    while (to < feeder->ahead + AHEAD) {
        if (at >= end) {
            if (feeder->datagram == feeder->last) break;
            at = (++feeder->datagram)->bytes;
            end = feeder->end = at + feeder->datagram->length;
            continue;
        }
        to->from = feeder->datagram;
        const unsigned char first = (unsigned char)*at;
        if (__builtin_expect(first <= '\r' || first == '_', 0)) {
            size_t empty = empty_line(at, end);
            at += empty;
            if (empty) continue;
            if (is_event(at, end)) {
                if (to == feeder->ahead) at = begin_event(to++, at, end);
                break; /* those before it first */
            }
        }
        at = WAY(read_line)(core, key, profile, to++, at, end);
    }
    WAY(leave)();
    feeder->at = at;
    feeder->next = 0;
    feeder->length = (uint32_t)(to - feeder->ahead);
}

/* Whether the head that was found by half of its hash is the line's. */
IN_WAY static inline int WAY(is_of)(const head *head, const record *line)
{
    const wanted of = {line->line, line->tail, shape_name_length(line->shape), shape_tail_length(line->shape), 0};
    return head && head->shape == line->shape && WAY(same_head)(head->text, &of);
}

IN_WAY static inline enum stop WAY(take_line)(core *core, feeder *feeder, record *line)
{
    if (__builtin_expect(line->what != DONE, 0)) return (enum stop)line->what;
    if (__builtin_expect(!WAY(is_of)(line->head, line), 0) && !look_again(core, feeder, line)) return NEW_HEAD;
    const head *head = line->head;
    cell *cell = line->cell;
    if (__builtin_expect(cell && line->is_plain && !head->odd, 1)) {
        if (head->state == COUNTER && line->number.is_integer) {
            cell->as.sum.whole += line->number.as.integer;
            return DONE;
        }
        if (head->state == TIMER && cell->as.samples.length < cell->as.samples.room) {
            cell->as.samples.values[cell->as.samples.length++] = number_real(line->number);
            return DONE;
        }
        if (head->state == GAUGE || head->state == GAUGE_MOVING) {
            cell_set_gauge(cell, line->number, feeder->now, ++core->ticket);
            return DONE;
        }
    }
    if (head->state < REFUSED) return add_values(core, line->head, NULL, line, feeder->now);
    return head->state == REFUSED ? KNOWN_FAULT : NEW_HEAD;
}

/* Adds what is in `ahead`, in order; DONE, or what a line stopped it with. */
IN_WAY static inline enum stop WAY(take_ahead)(core *core, feeder *feeder)
{
    record *line = feeder->ahead + feeder->next, *end = feeder->ahead + feeder->length;
    enum stop stop = DONE;
    while (line < end && stop == DONE) stop = WAY(take_line)(core, feeder, line++);
    feeder->next = (uint32_t)(line - feeder->ahead);
    return stop;
}

IN_WAY static enum stop WAY(feed)(core *core, feeder *feeder)
{
    for (;;) {
        enum stop stop = WAY(take_ahead)(core, feeder);
        if (stop != DONE) return stop;
        WAY(read_ahead)(core, feeder);
        if (!feeder->length) return DONE;
        look_ahead(core, feeder);
        feeder->lines += feeder->length;
    }
}
