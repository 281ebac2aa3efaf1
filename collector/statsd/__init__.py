"""The StatsD and DogStatsD grammar: the one implementation, used for heads, lines and explanations.

    packet    = line *( LF line ) [ LF ]            one datagram, or what a stream has delivered
    line      = [ metric / event / check ] [ CR ]
    metric    = name ":" samples *( "|" field )
    samples   = bit *( ":" bit )                    a:1|c:20|ms      several types, etsy
              / value 1*( ":" value ) "|" type      a:1:2|ms         several values, DogStatsD
    bit       = value "|" type [ "|@" rate ]
    type      = "c" / "g" / "ms" / "h" / "d" / "s"  and "m" where a listener allows it
    value     = [ "+" / "-" ] ( digits [ "." [digits] ] / "." digits ) [ ("e"/"E") ["+"/"-"] digits ]
              / any bytes except "|" LF             for "s" only, at least one
    field     = "@" rate / "#" tags / "T" 1*digit / "c:" id / "e:" text / "card:" word / "" / unknown
    rate      = value with 0 < rate <= 1
    tags      = tag *( "," tag )                    tag = key [ ":" rest ], empty tags skipped

Modules, each importing from those above it only:

    refusal     why a line, or a part of it, was refused; where in the line
    numbers     values and rates
    names       names, tags, and the four dialects that put tags into the name
    lines       heads and whole lines
    events      events and service checks
    framing     lines out of a byte stream, events that span lines

Nothing here raises for what a client sent except `Refusal`, which the callers turn into a count.
"""
