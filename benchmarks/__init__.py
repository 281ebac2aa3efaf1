"""Programs that print figures, never verdicts.

    python -m benchmarks          the engine in memory, a flush, the whole daemon beside a bare loop
    python -m benchmarks.load     load for any StatsD server, and what became of it
    python -m benchmarks.compare  our engines, a bare C loop and other servers in turn, into RESULTS.md
    python -m benchmarks.peers    those other servers: what is installed, and how to

Machines differ and are shared, so each figure stands beside another of the same run that does less: a bare
loop that receives and counts, for one. Compare the ratios.
"""
