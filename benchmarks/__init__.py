"""Programs that print figures, never verdicts. `python -m benchmarks` runs them all.

Machines differ and are shared, so each figure stands beside another of the same run that does less: a bare
loop that receives and counts, for one. Compare the ratios.
"""
