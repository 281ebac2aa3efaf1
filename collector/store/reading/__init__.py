"""What the reader is made of.

plan        which resolutions are read over which times, and how they are put together
slots       chunks of many series, out of the store
members     sets: keys of minutes and hours, counted and united
"""
